use crate::BootError;

/// Where command lines are copied to, so that the loader's memory can be given away. Strings are carved from a static buffer.
#[derive(Debug)]
pub struct Arena {
    free: &'static mut [u8],
    size: usize,
}

impl Arena {
    /// An arena that hands out pieces of `buffer`.
    #[must_use]
    pub fn new(buffer: &'static mut [u8]) -> Self {
        let size = buffer.len();
        Self { free: buffer, size }
    }

    /// Copies `text`. Bytes outside printable ASCII become `?`: command lines are echoed to a serial console, where control
    /// bytes would be taken for the start of a hypervisor line.
    pub fn copy(&mut self, text: &[u8]) -> Result<&'static str, BootError> {
        if text.len() > self.free.len() {
            return Err(BootError::TextTooLong(self.size));
        }
        let (place, rest) = core::mem::take(&mut self.free).split_at_mut(text.len());
        self.free = rest;
        for (to, &from) in place.iter_mut().zip(text) {
            *to = if from == b' ' || from.is_ascii_graphic() { from } else { b'?' };
        }
        Ok(core::str::from_utf8(place).unwrap_or(""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{boxed::Box, vec};

    #[test]
    fn text_is_copied_and_control_bytes_are_replaced() {
        let mut arena = Arena::new(Box::leak(vec![0; 8].into_boxed_slice()));
        assert_eq!(arena.copy(b"a b\x1e\xff"), Ok("a b??"));
        assert_eq!(arena.copy(b"1234"), Err(BootError::TextTooLong(8)));
        assert_eq!(arena.copy(b"123"), Ok("123"));
    }
}
