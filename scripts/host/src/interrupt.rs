//! SIGINT, SIGTERM and SIGHUP set a flag that every waiting loop looks at; so emulators are killed by the code that owns them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

fn flag() -> &'static Arc<AtomicBool> {
    static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    FLAG.get_or_init(Arc::default)
}

/// Starts to watch the signals.
///
/// # Errors
/// If the system refuses a handler.
pub fn install() -> std::io::Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(flag()))?;
    }
    Ok(())
}

/// Whether one of the signals has come.
#[must_use]
pub fn pending() -> bool {
    flag().load(Ordering::Relaxed)
}
