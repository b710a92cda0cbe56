//! Builds all guests into a folder: `cargo run -p gnomon-guests --example build-guests -- FOLDER`.

use std::path::{Path, absolute};

use anyhow::{Context, Result};

fn main() -> Result<()> {
    let folder = std::env::args_os().nth(1).context("expected one argument: the folder for the images")?;
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for (guest, image) in gnomon_guests::build_all(&workspace, &absolute(folder)?)? {
        println!("{}: {}", image.display(), guest.description);
    }
    Ok(())
}
