//! A stand-in for `thanos store` in tests and demos: `stand-in-thanos store --min-time=-1d
//! --max-time=0s ...`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    match thanos_timeshard::stand_in::main(&args) {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => {
            eprintln!("stand-in-thanos: {error}");
            ExitCode::FAILURE
        }
    }
}
