//! What a guest's name means: a file, a guest that comes with Gnomon, or a ready guest that is fetched from Debian's packages.

mod apt;
mod drivers;
mod grub;
mod initramfs;
mod ready;

use std::io::{self, Write as _};
use std::path::Path;

use crate::build;
use crate::cli::GuestsArgs;
use crate::guest::{Found, existing};
use crate::progress;
use crate::status::{Failed, Status};

/// The image that `name` means, with what belongs to it. Guests that come with Gnomon are built, ready guests fetched, if need
/// be. A file goes before a guest of the same name.
///
/// # Errors
/// If it is none of them, or cannot be built or fetched.
pub fn find(name: &str) -> anyhow::Result<Found> {
    if !Path::new(name).is_file() {
        if let Some(guest) = ready::by_name(name) {
            return guest.find();
        }
        if gnomon_guests::GUESTS.iter().any(|guest| guest.name == name) {
            let built = build::guests()?.into_iter().find(|(guest, _)| guest.name == name);
            let (guest, path) = built.ok_or_else(|| Failed::tool(format!("guest {name} was not built")))?;
            return Ok(Found { memory: u64::from(guest.memory) << 20, ..Found::kernel(path) });
        }
    }
    let unknown = "no such guest (`gnomon guests` lists those that come with Gnomon or can be fetched)";
    existing(name).map(Found::kernel).map_err(|error| error.context(unknown))
}

/// `gnomon guests`.
///
/// # Errors
/// If a guest cannot be fetched.
pub fn guests(args: &GuestsArgs) -> anyhow::Result<Status> {
    let mut out = io::stdout().lock();
    if args.fetch.is_empty() {
        writeln!(out, "Guests that come with Gnomon:")?;
        for guest in gnomon_guests::GUESTS {
            writeln!(out, "  {:<24} {:>4} MiB  {}", guest.name, guest.memory, guest.description)?;
        }
        writeln!(out, "\nReady guests, fetched from Debian's packages when they are first run:")?;
        for guest in ready::GUESTS {
            writeln!(out, "  {:<24} {:>4} MiB  {}", guest.name, guest.memory >> 20, guest.description)?;
            writeln!(out, "  {:<24}           arguments: {}", "", guest.arguments)?;
            writeln!(out, "  {:<24}           {}", "", guest.state())?;
        }
        return Ok(Status::Ok);
    }
    for name in &args.fetch {
        let guest = ready::by_name(name);
        let guest = guest.ok_or_else(|| Failed::usage(format!("{name}: no ready guest (see `gnomon guests`)")))?;
        if args.again {
            guest.forget()?;
        }
        let found = guest.find()?;
        progress::note(&format!("{name}: {}", guest.state()));
        writeln!(out, "{}", found.kernel.display())?;
    }
    Ok(Status::Ok)
}
