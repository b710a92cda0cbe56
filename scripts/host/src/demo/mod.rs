//! `gnomon demo` (to come with the demo guest).

use crate::cli::DemoArgs;
use crate::status::Status;

/// `gnomon demo`.
///
/// # Errors
/// None yet.
pub fn run(_args: &DemoArgs) -> anyhow::Result<Status> {
    Ok(Status::Ok)
}
