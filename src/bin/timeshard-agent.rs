//! `timeshard-agent`: the program in a store gateway's pod.
//!
//! Only dispatch and exit codes: 0 done, 1 failed, 2 usage or invalid input; `launch` exits with
//! thanos' own code.

use std::process::ExitCode;

fn main() -> ExitCode {
    thanos_timeshard::agent_cli::main()
}
