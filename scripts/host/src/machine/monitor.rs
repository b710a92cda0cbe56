//! QEMU's control socket (QMP). It is asked for one thing: whether the guest switched the machine off or reset it, which the exit
//! status does not tell.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Without this QEMU sends no events.
const START: &[u8] = b"{\"execute\":\"qmp_capabilities\"}\n";
/// How long to wait for QEMU to connect before looking whether it is wanted still.
const TICK: std::time::Duration = std::time::Duration::from_millis(2);

/// The listener.
#[derive(Debug)]
pub(super) struct Monitor {
    events: JoinHandle<String>,
    over: Arc<AtomicBool>,
}

impl Monitor {
    /// Waits for QEMU at `path`.
    pub(super) fn listen(path: &Path) -> std::io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        let over = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&over);
        let events = std::thread::spawn(move || read_events(&listener, &flag).unwrap_or_default());
        Ok(Self { events, over })
    }

    /// Whether the guest has switched the machine off. QEMU has ended.
    pub(super) fn saw_power_off(self) -> bool {
        self.over.store(true, Ordering::Relaxed);
        let events = self.events.join().unwrap_or_default();
        events.lines().any(|line| line.contains("\"SHUTDOWN\"") && line.contains("\"guest-shutdown\""))
    }
}

/// Everything that QEMU says until it ends, which is little.
fn read_events(listener: &UnixListener, over: &AtomicBool) -> std::io::Result<String> {
    let mut stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(_) if over.load(Ordering::Relaxed) => return Ok(String::new()),
            Err(_) => std::thread::sleep(TICK),
        }
    };
    stream.set_nonblocking(false)?;
    stream.write_all(START)?;
    let mut events = Vec::new();
    // A guest that resets the machine for ever is not followed for ever.
    stream.take(1 << 20).read_to_end(&mut events)?;
    Ok(String::from_utf8_lossy(&events).into_owned())
}
