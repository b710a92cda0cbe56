//! The `gnomon` command: parses arguments and turns the result into an exit code.

use clap::Parser;
use gnomon_host::{cli::Cli, dispatch, interrupt, progress};

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    if let Err(error) = interrupt::install() {
        progress::error(&format!("cannot handle signals: {error}"));
    }
    dispatch::run(cli).into()
}
