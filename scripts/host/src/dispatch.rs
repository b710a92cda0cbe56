//! From a parsed command line to an exit code.

use std::io::{self, Write as _};

use crate::cli::{BuildArgs, Cli, Command};
use crate::guest::Guest;
use crate::image::{self, Payload};
use crate::machine::RunFolder;
use crate::status::{Status, of_error};
use crate::{bench, build, catalog, check, demo, doctor, progress, run};

/// Does what the command line says. Errors are printed.
#[must_use]
pub fn run(cli: Cli) -> Status {
    progress::set_quiet(cli.quiet);
    let result = match cli.command {
        Command::Demo(args) => demo::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Trace(args) => run::decode(&args),
        Command::Test(args) => check::run(&args),
        Command::Fuzz(args) => check::fuzz(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Doctor => doctor::run(),
        Command::Build(args) => build_all(&args),
        Command::Guests(args) => catalog::guests(&args),
    };
    result.unwrap_or_else(|error| {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
            return Status::Interrupted;
        }
        progress::error(&format!("{error:#}"));
        of_error(&error)
    })
}

fn build_all(args: &BuildArgs) -> anyhow::Result<Status> {
    let kernel = build::kernel()?;
    let guests = build::guests()?;
    let mut out = io::stdout().lock();
    if let (Some(image), Some(output)) = (&args.iso, &args.output) {
        let guest = Guest::of(&guest_name(image), catalog::find(image)?);
        let folder = RunFolder::new()?;
        let iso = image::make(
            &Payload::gnomon(kernel, run::kernel_command_line("info", false, &[]), &[guest]),
            folder.path(),
        )?;
        std::fs::copy(iso, output)?;
        writeln!(out, "{}", output.display())?;
    } else {
        writeln!(out, "{}", kernel.display())?;
        for (_, path) in guests {
            writeln!(out, "{}", path.display())?;
        }
    }
    Ok(Status::Ok)
}

fn guest_name(image: &str) -> String {
    std::path::Path::new(image).file_stem().map_or_else(|| "vm1".into(), |stem| stem.to_string_lossy().into_owned())
}
