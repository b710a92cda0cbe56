//! Reads a file that another process is writing.

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

use super::Console;

/// The reader.
#[derive(Debug)]
pub(super) struct Tail {
    path: PathBuf,
    file: Option<File>,
}

impl Tail {
    /// The file need not exist yet.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, file: None }
    }

    /// Hands on what has been written since the last call, and says whether there was anything.
    pub(super) fn read(&mut self, sink: &mut Console<'_>) -> std::io::Result<bool> {
        if self.file.is_none() {
            match File::open(&self.path) {
                Ok(file) => self.file = Some(file),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        let Some(file) = &mut self.file else { return Ok(false) };
        let mut any = false;
        let mut buffer = [0; 4096];
        loop {
            let count = file.read(&mut buffer)?;
            if count == 0 {
                return Ok(any);
            }
            sink(&buffer[..count])?;
            any = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn follows_a_growing_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut tail = Tail::new(path.clone());
        let mut seen = Vec::new();
        let mut sink = |bytes: &[u8]| {
            seen.extend_from_slice(bytes);
            Ok(())
        };
        assert!(!tail.read(&mut sink).unwrap());
        let mut file = File::create(&path).unwrap();
        for part in ["one ", "two ", "three"] {
            file.write_all(part.as_bytes()).unwrap();
            assert!(tail.read(&mut sink).unwrap());
        }
        assert!(!tail.read(&mut sink).unwrap());
        assert_eq!(seen, b"one two three");
    }
}
