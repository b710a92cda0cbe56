//! Puts the symbol table of a linked kernel into its own symbol section: `embed-symbols KERNEL`.
//!
//! The host tool does the same on each build; this is for builds by hand.

use gnomon_boot::symbols::embed;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(1) else {
        eprintln!("usage: embed-symbols KERNEL");
        return ExitCode::FAILURE;
    };
    let done = std::fs::read(&path).map_err(|e| e.to_string()).and_then(|mut file| {
        let count = embed(&mut file).map_err(|e| e.to_string())?;
        std::fs::write(&path, file).map_err(|e| e.to_string())?;
        Ok(count)
    });
    match done {
        Ok(count) => {
            println!("{count} symbols");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}: {error}", path.display());
            ExitCode::FAILURE
        }
    }
}
