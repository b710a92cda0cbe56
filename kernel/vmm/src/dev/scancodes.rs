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

/// Set 2's prefix for it.
const RELEASE_2: u8 = 0xF0;
/// Set 2's codes by those of set 1, up to the space bar.
const SET_2: [u8; 0x3A] = [
    0x00, 0x76, 0x16, 0x1E, 0x26, 0x25, 0x2E, 0x36, 0x3D, 0x3E, 0x46, 0x45, 0x4E, 0x55, 0x66, 0x0D, 0x15, 0x1D, 0x24,
    0x2D, 0x2C, 0x35, 0x3C, 0x43, 0x44, 0x4D, 0x54, 0x5B, 0x5A, 0x14, 0x1C, 0x1B, 0x23, 0x2B, 0x34, 0x33, 0x3B, 0x42,
    0x4B, 0x4C, 0x52, 0x0E, 0x12, 0x5D, 0x1A, 0x22, 0x21, 0x2A, 0x32, 0x31, 0x3A, 0x41, 0x49, 0x4A, 0x59, 0x7C, 0x11,
    0x29,
];

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

/// The codes in set 2 for a code of set 1: another number, and the release as a prefix.
pub(super) fn in_set_2(code: u8) -> impl Iterator<Item = u8> {
    let release = (code & RELEASE != 0).then_some(RELEASE_2);
    release.into_iter().chain(SET_2.get(usize::from(code & !RELEASE)).copied())
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
    fn set_2_has_a_code_for_each_key() {
        assert_eq!(in_set_2(0x1E).collect::<Vec<_>>(), [0x1C]);
        assert_eq!(in_set_2(0xB9).collect::<Vec<_>>(), [0xF0, 0x29]);
        let mut codes: Vec<u8> = SET_2.into();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), SET_2.len());
    }

    #[test]
    fn every_printable_character_has_a_key() {
        assert!((0x20..0x7F).all(|character| typed(character).count() >= 2));
    }
}
