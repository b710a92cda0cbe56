//! The trace port, COM2: binary trace records for the host tool.

use crate::uart::{COM2, Receive};

pub(crate) fn init() {
    COM2.init(Receive::Silent);
}

/// Sends bytes, waiting for room: nothing is lost.
pub fn write(bytes: &[u8]) {
    bytes.iter().for_each(|&byte| COM2.send(byte));
}

/// Waits until all bytes have left the port.
pub fn flush() {
    COM2.flush();
}
