//! Damaged matrices are refused with the place of the damage.

use bitnet_kernels::Format;
use bitnet_kernels::format::{FormatError, MOST_COLS, check, decode, encode};

const ROWS: usize = 3;
const COLS: usize = 512;

fn weights() -> Vec<i8> {
    (0..ROWS * COLS).map(|i| ((7 * i + i / 5) % 3) as i8 - 1).collect()
}

fn encoded(format: Format) -> Vec<u8> {
    encode(format, &weights(), ROWS, COLS, 0.75).expect("ternary weights")
}

#[test]
fn weights_survive_every_ternary_format() {
    for format in Format::TERNARY {
        assert_eq!(decode(format, &encoded(format), ROWS, COLS).unwrap(), weights(), "{format}");
    }
}

#[test]
fn a_worked_example() {
    let weights: Vec<i8> = (0..1024).map(|i| ((7 * i + i / 5) % 3) as i8 - 1).collect();
    let bytes = encode(Format::I2S, &weights, 4, 256, 0.75).unwrap();
    assert_eq!(bytes.len(), 288);
    assert_eq!(bytes[..8], [0x25, 0x42, 0x94, 0x09, 0x50, 0x25, 0x42, 0x94]);
    assert_eq!(bytes[256..260], [0x00, 0x00, 0x40, 0x3f]);
}

#[test]
fn code_3_is_found_wherever_it_is() {
    for (format, places) in
        [(Format::I2S, vec![0, 1, 77, 383]), (Format::Tq2_0, vec![0, 63, 66, 327])]
    {
        for place in places {
            for shift in [0, 2, 4, 6] {
                let mut bytes = encoded(format);
                bytes[place] |= 3 << shift;
                let error = check(format, &bytes, ROWS, COLS).unwrap_err();
                assert_eq!(error, FormatError::Code { offset: place }, "{format}");
            }
        }
    }
}

#[test]
fn lengths_and_shapes_must_fit() {
    for format in Format::TERNARY {
        let bytes = encoded(format);
        let (expected, found) = (bytes.len(), bytes.len() - 1);
        let short = check(format, &bytes[..found], ROWS, COLS).unwrap_err();
        assert_eq!(short, FormatError::Length { format, expected, found });
        let columns = check(format, &bytes, ROWS, COLS + 64).unwrap_err();
        assert!(matches!(columns, FormatError::Columns { cols: 576, .. }), "{columns}");
        assert!(check(format, &bytes, usize::MAX / 64, COLS).is_err());
    }
    let all = Format::TERNARY.iter().chain(&Format::FLOAT);
    assert!(all.clone().all(|format| format.row_bytes(0).is_err()));
    assert!(all.clone().all(|format| format.row_bytes(usize::MAX).is_err()));
    // The widest rows there may be: sums of codes times activations stay within 32 bits.
    let widest = i32::MAX as i64 / (3 * 128);
    for &format in all {
        assert!(format.row_bytes(MOST_COLS).is_ok() && (MOST_COLS as i64) < widest, "{format}");
        let cols = 2 * MOST_COLS;
        assert_eq!(format.row_bytes(cols), Err(FormatError::Width { cols }), "{format}");
    }
}

#[test]
fn scales_must_be_finite_and_one() {
    let mut bytes = encoded(Format::I2S);
    bytes[384..388].copy_from_slice(&f32::NAN.to_le_bytes());
    let error = check(Format::I2S, &bytes, ROWS, COLS).unwrap_err();
    assert!(matches!(error, FormatError::Scale { offset: 384, .. }), "{error}");

    for (format, block) in [(Format::Tq1_0, 54), (Format::Tq2_0, 66)] {
        let scale = |bytes: &mut [u8], block_index: usize, bits: u16| {
            bytes[(block_index + 1) * block - 2..][..2].copy_from_slice(&bits.to_le_bytes());
        };
        let mut bytes = encoded(format);
        scale(&mut bytes, 2, 0x7C00);
        let error = check(format, &bytes, ROWS, COLS).unwrap_err();
        assert!(matches!(error, FormatError::Scale { offset, .. } if offset == 3 * block - 2));

        let mut bytes = encoded(format);
        scale(&mut bytes, 4, 0x3800);
        let error = check(format, &bytes, ROWS, COLS).unwrap_err();
        let expected = FormatError::Scales { offset: 5 * block - 2, first: 0.75, second: 0.5 };
        assert_eq!(error, expected, "{format}");

        // A scale of 0 is fine for a block of zeros, and only for that.
        let mut zeros = weights();
        zeros[256..512].fill(0);
        let mut bytes = encode(format, &zeros, ROWS, COLS, 0.75).unwrap();
        scale(&mut bytes, 1, 0);
        assert_eq!(check(format, &bytes, ROWS, COLS), Ok(0.75), "{format}");
        scale(&mut bytes, 2, 0);
        assert!(matches!(check(format, &bytes, ROWS, COLS), Err(FormatError::Scales { .. })));
    }
}

#[test]
fn only_ternary_weights_are_encoded() {
    let mut weights = weights();
    weights[700] = 2;
    let error = encode(Format::I2S, &weights, ROWS, COLS, 1.0).unwrap_err();
    assert_eq!(error, FormatError::Weight { index: 700, value: 2 });
    assert!(encode(Format::I2S, &weights[1..], ROWS, COLS, 1.0).is_err());
}
