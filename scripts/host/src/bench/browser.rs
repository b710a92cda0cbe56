//! `gnomon bench page`: the report in a real browser, without a window and without the net.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context as _;
use resvg::tiny_skia::Pixmap;

use super::page::FILE;
use super::write_message;
use crate::status::{Failed, Status};

const BROWSER: &str = "chromium";
const WIDTH: u32 = 1100;
const HEIGHT: u32 = 9000;
/// What the picture of the page is called.
const PICTURE: &str = "report.png";
/// What the page's script says of itself when it has run.
const RAN: &str = "data-editable=\"";

/// Opens the report in `folder`, saves what is seen beside it, and checks that it is something and that the script runs.
///
/// # Errors
/// If there is no browser or no report.
pub(super) fn check(folder: &Path) -> anyhow::Result<Status> {
    let page = folder.join(FILE);
    let page = page.canonicalize().with_context(|| format!("no report: {}", page.display()))?;
    let picture = folder.join(PICTURE);
    let profile = tempfile::tempdir()?;
    let run = |what: &str| -> anyhow::Result<Vec<u8>> {
        let done = Command::new(BROWSER)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                "--host-resolver-rules=MAP * ~NOTFOUND",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(format!("--window-size={WIDTH},{HEIGHT}"))
            .arg(what)
            .arg(format!("file://{}", page.display()))
            .stdin(Stdio::null())
            .output()
            .map_err(|error| Failed::tool(format!("{BROWSER}: {error}")))?;
        if !done.status.success() {
            return Err(Failed::tool(format!("{BROWSER}: {}", String::from_utf8_lossy(&done.stderr).trim())));
        }
        Ok(done.stdout)
    };
    run(&format!("--screenshot={}", picture.display()))?;
    let seen = Pixmap::load_png(&picture).context("the browser made no picture")?;
    write_message(&picture);
    let document = String::from_utf8_lossy(&run("--dump-dom")?).into_owned();
    let editable = document.split_once(RAN).and_then(|(_, rest)| rest.split('"').next()?.parse::<u32>().ok());
    let dark = seen.pixels().iter().filter(|pixel| pixel.green() < 100).count();
    println!(
        "{} x {} pixels, {dark} of them dark; plots that can be edited: {}",
        seen.width(),
        seen.height(),
        editable.unwrap_or(0)
    );
    let good = seen.width() == WIDTH && dark > 10_000 && editable.is_some_and(|count| count > 0);
    Ok(if good { Status::Ok } else { Status::Guest })
}
