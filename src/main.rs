//! `timeshard`: parses the command line, runs the command, turns its result into an exit code.

use std::process::ExitCode;

use clap::Parser as _;
use thanos_timeshard::cli;

#[allow(
    clippy::print_stderr,
    reason = "the one place where a failure reaches the person"
)]
fn main() -> ExitCode {
    if let Some(code) = cli::play_another_program() {
        return code;
    }
    // clap exits with 2 on bad usage and 0 on --help, which is the contract.
    match cli::run(cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("timeshard: {}", cli::for_terminal(&failure.to_string()));
            failure.exit_code()
        }
    }
}
