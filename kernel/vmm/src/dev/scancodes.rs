//! What a US keyboard sends in scan code set 1 when somebody types a character of ASCII.

/// Keys without and with shift, from the scan code 0x02 on; 0 where a key makes no character.
const PLAIN: &[u8] = b"1234567890-=\x7f\tqwertyuiop[]\n\0asdfghjkl;'`\0\\zxcvbnm,./";
const SHIFTED: &[u8] = b"!@#$%^&*()_+\0\0QWERTYUIOP{}\0\0ASDFGHJKL:\"~\0|ZXCVBNM<>?";
const FIRST: u8 = 0x02;
const ESCAPE: u8 = 0x01;
const SPACE: u8 = 0x39;
const SHIFT: u8 = 0x2A;
const CONTROL: u8 = 0x1D;
/// Set in the code of a key that is let go.
const RELEASE: u8 = 0x80;

/// The codes of pressing and releasing the keys for `character`; nothing for what no key makes.
pub(super) fn typed(character: u8) -> impl Iterator<Item = u8> {
    let (modifier, key) = match character {
        b'\r' => (None, place(PLAIN, b'\n')),
        0x08 => (None, place(PLAIN, 0x7F)),
        0x1B => (None, Some(ESCAPE)),
        b' ' => (None, Some(SPACE)),
        _ => match (place(PLAIN, character), place(SHIFTED, character)) {
            (Some(key), _) => (None, Some(key)),
            (None, Some(key)) => (Some(SHIFT), Some(key)),
            // Control characters are those of the letters 0x40 above.
            (None, None) => (Some(CONTROL), place(PLAIN, (character | 0x40).to_ascii_lowercase())),
        },
    };
    let modifier = modifier.filter(|_| key.is_some());
    let codes = [modifier, key, key.map(|key| key | RELEASE), modifier.map(|key| key | RELEASE)];
    codes.into_iter().flatten()
}

fn place(keys: &[u8], character: u8) -> Option<u8> {
    let at = keys.iter().position(|&key| key == character && key != 0)?;
    Some(FIRST.saturating_add(at as u8))
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn codes(character: u8) -> Vec<u8> {
        typed(character).collect()
    }

    #[test]
    fn keys() {
        assert_eq!(codes(b'a'), [0x1E, 0x9E]);
        assert_eq!(codes(b'A'), [0x2A, 0x1E, 0x9E, 0xAA]);
        assert_eq!(codes(b'?'), [0x2A, 0x35, 0xB5, 0xAA]);
        assert_eq!(codes(b'\r'), [0x1C, 0x9C]);
        assert_eq!(codes(b'\n'), [0x1C, 0x9C]);
        assert_eq!(codes(0x03), [0x1D, 0x2E, 0xAE, 0x9D]);
        assert_eq!(codes(0x7F), [0x0E, 0x8E]);
        assert_eq!(codes(b' '), [0x39, 0xB9]);
        assert_eq!(codes(b'z'), [0x2C, 0xAC]);
        assert!(codes(0xC3).is_empty());
    }

    #[test]
    fn every_printable_character_has_a_key() {
        assert!((0x20..0x7F).all(|character| typed(character).count() >= 2));
    }
}
