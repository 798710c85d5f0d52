//! `timeshard`: parses the command line, runs the command, turns its result into an exit code.

use std::process::ExitCode;

use thanos_timeshard::cli;

#[allow(clippy::print_stderr, reason = "the one place that prints a failure")]
fn main() -> ExitCode {
    if let Some(code) = cli::play_another_program() {
        return code;
    }
    match cli::run(cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("timeshard: {}", cli::for_terminal(&failure.to_string()));
            failure.exit_code()
        }
    }
}
