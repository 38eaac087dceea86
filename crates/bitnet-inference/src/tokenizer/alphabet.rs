//! GPT-2's byte alphabet: in a vocabulary, each byte is written as one printable character.
//!
//! Bytes that are printable in Latin-1 stand for themselves; the 68 others (controls, space, soft
//! hyphen ...) follow, in order, from U+0100 on. So a space is `Ġ` (U+0120). Source:
//! `bytes_to_unicode` in OpenAI's GPT-2 release.

/// One past the last character of the alphabet, U+0143.
const END: usize = 0x144;

/// The byte that each character below [`END`] stands for.
const BYTES: [Option<u8>; END] = {
    let mut bytes = [None; END];
    let mut next = 0x100;
    let mut byte: u8 = 0;
    loop {
        if matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) {
            bytes[byte as usize] = Some(byte);
        } else {
            bytes[next] = Some(byte);
            next += 1;
        }
        if byte == u8::MAX {
            break;
        }
        byte += 1;
    }
    bytes
};

/// The character that a byte is written as.
pub(crate) fn spelling(byte: u8) -> char {
    let mut characters = ('\0'..).zip(BYTES);
    // Every byte has one: see the test.
    characters.find(|&(_, found)| found == Some(byte)).map_or('\0', |(c, _)| c)
}

/// Appends the bytes that `text` spells to `out`. If some character is not of the alphabet, `out`
/// stays as it was and the answer is false.
pub(super) fn decode(text: &str, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    for c in text.chars() {
        match BYTES.get(c as usize).copied().flatten() {
            Some(byte) => out.push(byte),
            None => {
                out.truncate(start);
                return false;
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_one_character() {
        let mut bytes: Vec<u8> = BYTES.iter().copied().flatten().collect();
        assert_eq!(BYTES[END - 1], Some(0xad), "the soft hyphen is the last of those moved");
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
    }

    #[test]
    fn spellings_are_read_back() {
        for byte in 0..=u8::MAX {
            let mut out = Vec::new();
            assert!(decode(&spelling(byte).to_string(), &mut out));
            assert_eq!(out, [byte]);
        }
    }

    #[test]
    fn spells_and_refuses() {
        let mut out = b"x".to_vec();
        assert!(decode("ĠaÄĊĀ!", &mut out));
        assert_eq!(out, b"x a\xc4\n\0!");
        assert!(!decode("ab c", &mut out));
        assert!(!decode("ab漢", &mut out));
        assert_eq!(out, b"x a\xc4\n\0!");
    }
}
