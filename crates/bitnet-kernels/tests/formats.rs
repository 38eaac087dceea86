//! Damaged matrices are refused with the place of the damage.

use bitnet_kernels::Format;
use bitnet_kernels::format::{
    Encoding, FormatError, MOST_COLS, Tiling, check, decode, encode, payload,
};

/// As few rows as every format has.
const ROWS: usize = 32;
const COLS: usize = 512;

fn weights() -> Vec<i8> {
    (0..ROWS * COLS).map(|i| ((7 * i + i / 5) % 3) as i8 - 1).collect()
}

/// The scale of tests: 1 where the format holds none.
fn scale(format: Format) -> f32 {
    if format == Format::HfPacked { 1.0 } else { 0.75 }
}

fn encoded(format: Format) -> Vec<u8> {
    encode(format, &weights(), ROWS, COLS, scale(format)).expect("ternary weights")
}

#[test]
fn weights_survive_every_ternary_format() {
    for format in Format::TERNARY {
        let bytes = encoded(format);
        assert_eq!(decode(format, &bytes, ROWS, COLS).unwrap(), weights(), "{format}");
        assert_eq!(check(format, &bytes, ROWS, COLS), Ok(scale(format)), "{format}");
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
fn four_weights_of_bitnet_rs_share_a_byte() {
    let weights = [[1, -1, 0, 1], [0; 4], [-1; 4], [1; 4]].concat().repeat(4);
    let bytes = encode(Format::BitNet32F16, &weights, 1, 64, 0.75).unwrap();
    let codes = [0b11_10_01_11, 0b10_10_10_10, 0b01_01_01_01, 0xFF];
    let block = [&codes[..], &codes, &[0x00, 0x3A]].concat();
    assert_eq!(bytes, block.repeat(2));
    // Where a code is 0, it stands for -2.
    for (offset, byte) in [(0, 0b11_10_01_00), (17, 0b00_11_11_11)] {
        let mut bytes = bytes.clone();
        bytes[offset] = byte;
        let error = check(Format::BitNet32F16, &bytes, 1, 64).unwrap_err();
        assert_eq!(error, FormatError::Code { offset });
    }
}

#[test]
fn code_3_is_found_wherever_it_is() {
    for (format, places) in [
        (Format::I2S, vec![0, 1, 77, 4095]),
        (Format::Tq2_0, vec![0, 63, 66, 327]),
        (Format::Iq2Bn, vec![4, 131, 136, 32 * 132 - 1]),
        (Format::Iq2BnR4, vec![16, 527, 544, 8 * 528 - 1]),
        (Format::HfPacked, vec![0, 1, 77, 4095]),
        (Format::I2SArm, vec![0, 1, 77, 4095]),
        (Format::I2SR4, vec![0, 1, 77, 4095]),
    ] {
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
        let [columns, rows, all] = format.multiples();
        if columns > 1 {
            let error = check(format, &bytes, ROWS, COLS + 4).unwrap_err();
            let expected = FormatError::Columns { format, cols: 516, multiple: columns };
            assert_eq!(error, expected);
        }
        if rows > 1 {
            let error = check(format, &bytes, ROWS + 2, COLS).unwrap_err();
            assert_eq!(error, FormatError::Rows { format, rows: 34, multiple: rows });
        }
        if all > 1 {
            let error = check(format, &bytes, 3, 5).unwrap_err();
            assert_eq!(error, FormatError::Elements { format, rows: 3, cols: 5, multiple: all });
        }
        assert!(check(format, &bytes, usize::MAX / 64, COLS).is_err());
        assert!(check(format, &bytes, usize::MAX / 64 * 32, COLS).is_err());
    }
    // Rows without bytes of their own are refused as that, other widths as no widths.
    for format in [Format::Iq2BnR4, Format::HfPacked, Format::I2SR4, Format::Tl1, Format::Tl2] {
        assert_eq!(format.row_bytes(512), Err(FormatError::Interleaved { format }));
    }
    let error = FormatError::Columns { format: Format::I2S, cols: 5460, multiple: 128 };
    assert_eq!(Format::I2S.row_bytes(5460), Err(error));
    assert_eq!(payload(Format::I2S, 96, 5460), Ok(96 * 5460 / 4 + 32));
    let all = Format::TERNARY.iter().chain(&Format::FLOAT);
    assert!(all.clone().all(|format| format.row_bytes(0).is_err()));
    assert!(all.clone().all(|format| format.row_bytes(usize::MAX).is_err()));
    // The widest rows there may be: sums of codes times activations stay within 32 bits.
    let widest = i32::MAX as i64 / (3 * 128);
    for &format in all {
        assert!(payload(format, 32, MOST_COLS).is_ok() && (MOST_COLS as i64) < widest, "{format}");
        let cols = 2 * MOST_COLS;
        assert_eq!(format.row_bytes(cols), Err(FormatError::Width { cols }), "{format}");
    }
}

#[test]
fn scales_must_be_finite_and_one() {
    let mut bytes = encoded(Format::I2S);
    bytes[4096..4100].copy_from_slice(&f32::NAN.to_le_bytes());
    let error = check(Format::I2S, &bytes, ROWS, COLS).unwrap_err();
    assert!(matches!(error, FormatError::Scale { offset: 4096, .. }), "{error}");

    for (format, block) in [(Format::Tq1_0, 54), (Format::Tq2_0, 66), (Format::BitNet32F16, 10)] {
        let weights_each = format.block().0;
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
        zeros[weights_each..2 * weights_each].fill(0);
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

/// With tiles `BM`, `BK`, `bm`.
fn tiled(format: Format, [rows, cols, strip]: [usize; 3]) -> Encoding {
    Encoding { format, tiling: Some(Tiling { rows, cols, strip }) }
}

/// Tilings in which no two parameters are the same, and shapes for them, ragged columns included.
fn tilings() -> Vec<(Encoding, (usize, usize))> {
    let tiled = |format, shape, tiles| (tiled(format, tiles), shape);
    vec![
        tiled(Format::Tl1, (32, 8), [32, 8, 32]),
        tiled(Format::Tl1, (192, 96), [96, 24, 32]),
        tiled(Format::Tl1, (256, 24), [128, 12, 64]),
        tiled(Format::Tl2, (32, 96), [32, 96, 32]),
        tiled(Format::Tl2, (192, 512), [96, 48, 32]),
        tiled(Format::Tl2, (64, 800), [64, 192, 32]),
        tiled(Format::Tl2, (32, 32), [32, 96, 32]),
        tiled(Format::Tl2, (64, 352), [32, 96, 32]),
        tiled(Format::Tl2, (64, 448), [64, 192, 32]),
        tiled(Format::Tl2, (32, 72), [32, 24, 32]),
    ]
}

#[test]
fn tiles_hold_every_weight_once() {
    for (encoding, (rows, cols)) in tilings() {
        let weights: Vec<i8> =
            (0..rows * cols).map(|i| ((i * i + 7 * i + i / 5) % 3) as i8 - 1).collect();
        let bytes = encode(encoding, &weights, rows, cols, -0.25).unwrap();
        assert_eq!(Ok(bytes.len()), payload(encoding, rows, cols));
        assert_eq!(check(encoding, &bytes, rows, cols), Ok(-0.25), "{encoding:?}");
        assert_eq!(decode(encoding, &bytes, rows, cols).unwrap(), weights, "{encoding:?}");
    }
}

#[test]
fn plain_tiles_do_not_depend_on_their_columns() {
    for (format, [narrow, wide]) in [(Format::Tl1, [8, 768]), (Format::Tl2, [48, 384])] {
        let weights = weights().repeat(3);
        let bytes = [narrow, wide].map(|cols| {
            let tiling = Some(Tiling { cols, ..Tiling::plain(format) });
            encode(Encoding { format, tiling }, &weights, 64, 768, 1.0).unwrap()
        });
        assert_eq!(bytes[0], bytes[1], "{format}");
        assert_eq!(bytes[0], encode(format, &weights, 64, 768, 1.0).unwrap(), "{format}");
    }
}

#[test]
fn published_tiles_fit_their_shapes() {
    let mut tl1 = 0;
    for (rows, cols) in [
        (1536, 4096),
        (1536, 1536),
        (4096, 1536),
        (3200, 8640),
        (3200, 3200),
        (8640, 3200),
        (14336, 4096),
        (4096, 14336),
        (1024, 4096),
        (4096, 4096),
    ] {
        for format in [Format::Tl1, Format::Tl2] {
            let all: Vec<_> = Tiling::published(format, rows, cols).collect();
            assert_eq!(Tiling::of(format, rows, cols), all[0]);
            for tiling in all {
                let encoding = Encoding { format, tiling: Some(tiling) };
                assert!(payload(encoding, rows, cols).is_ok(), "{tiling:?} of {rows} x {cols}");
                tl1 += usize::from(format == Format::Tl1);
            }
        }
    }
    // Ten shapes, of which four have a preset besides.
    assert_eq!(tl1, 14);
    let both: Vec<_> = Tiling::published(Format::Tl1, 4096, 4096).collect();
    let [first, second] = both[..] else { panic!("{both:?}") };
    assert_eq!((first.rows, first.cols, first.strip), (128, 64, 64));
    assert_eq!(second, Tiling { strip: 32, ..first });
    // 2560 x 6912 of TL2, as bitnet.cpp counts its bytes.
    assert_eq!(payload(Format::Tl2, 2560, 6912), Ok(3_713_760));
    assert_eq!(Tiling::published(Format::Tl2, 2560, 6912).next(), None);
}

#[test]
fn tiles_that_do_not_fit_are_refused() {
    for (format, rows, tiling) in [
        (Format::Tl1, 96, [64, 64, 32]),
        (Format::Tl1, 64, [32, 64, 64]),
        (Format::Tl1, 64, [64, 96, 32]),
        (Format::Tl1, 64, [64, 4, 32]),
        (Format::Tl1, 64, [64, 64, 16]),
        (Format::Tl1, 64, [0, 64, 32]),
        (Format::Tl1, 64, [32, 0, 32]),
        (Format::Tl2, 64, [32, 96, 64]),
        (Format::Tl2, 64, [32, 72, 32]),
        (Format::Tl2, 64, [32, 32, 32]),
        (Format::Tl2, 64, [32, 0, 32]),
        (Format::Tl2, 64, [32, usize::MAX, 32]),
    ] {
        let encoding = tiled(format, tiling);
        let error = payload(encoding, rows, 512).unwrap_err();
        let tiling = encoding.tiling.unwrap();
        assert_eq!(error, FormatError::Tiling { format, rows, cols: 512, tiling });
    }
    // A format without tiles.
    let encoding = tiled(Format::I2S, [32, 96, 32]);
    for error in [
        payload(encoding, 32, 512).map(drop),
        check(encoding, &encoded(Format::I2S), 32, 512).map(drop),
        encode(encoding, &weights(), 32, 512, 1.0).map(drop),
    ] {
        assert!(matches!(error, Err(FormatError::Tiling { format: Format::I2S, .. })), "{error:?}");
    }
    let error = Format::Tl2.row_bytes(512).unwrap_err();
    assert_eq!(error, FormatError::Interleaved { format: Format::Tl2 });
}

#[test]
fn damage_to_tiles_is_found_where_it_is() {
    // Triples in 480 columns: magnitudes up to 2560, signs up to 3200, pairs up to 3456, zeros up to
    // 3776.
    let places = [(Format::Tl1, 0), (Format::Tl1, 4095), (Format::Tl2, 2559), (Format::Tl2, 3200)];
    for (format, offset) in places {
        for value in [0xE0, 0x0E] {
            let mut bytes = encoded(format);
            bytes[offset] = value;
            let error = check(format, &bytes, ROWS, COLS).unwrap_err();
            assert_eq!(error, FormatError::Index { offset, value }, "{format}");
        }
    }
    for offset in [3456, 3775] {
        let mut bytes = encoded(Format::Tl2);
        assert_eq!(bytes.len(), 3776 + 32);
        bytes[offset] = 1;
        let error = check(Format::Tl2, &bytes, ROWS, COLS).unwrap_err();
        assert_eq!(error, FormatError::Padding { offset, value: 1 });
    }
    // Nine is a magnitude, but no index of a pair; a sign may be anything.
    let mut bytes = encoded(Format::Tl2);
    bytes[0] = 0x99;
    bytes[2560] = 0xFF;
    assert_eq!(check(Format::Tl2, &bytes, ROWS, COLS), Ok(0.75));
    for format in [Format::Tl1, Format::Tl2] {
        let mut bytes = encoded(format);
        let offset = bytes.len() - 32;
        bytes[offset..][..4].copy_from_slice(&f32::INFINITY.to_le_bytes());
        let error = check(format, &bytes, ROWS, COLS).unwrap_err();
        assert_eq!(error, FormatError::Scale { offset, value: f32::INFINITY });
    }
}

#[test]
fn rows_with_scales_of_their_own_must_agree() {
    let mut bytes = encoded(Format::Iq2Bn);
    let row = 4 + COLS / 4;
    bytes[2 * row..][..4].copy_from_slice(&0.5_f32.to_le_bytes());
    let error = check(Format::Iq2Bn, &bytes, ROWS, COLS).unwrap_err();
    assert_eq!(error, FormatError::Scales { offset: 2 * row, first: 0.75, second: 0.5 });
    bytes[2 * row..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    let error = check(Format::Iq2Bn, &bytes, ROWS, COLS).unwrap_err();
    assert!(matches!(error, FormatError::Scale { offset, .. } if offset == 2 * row));
    // A row of zeros may have the scale 0.
    bytes[2 * row..][..4].fill(0);
    assert!(matches!(check(Format::Iq2Bn, &bytes, ROWS, COLS), Err(FormatError::Scales { .. })));
    bytes[2 * row + 4..][..COLS / 4].fill(0x55);
    assert_eq!(check(Format::Iq2Bn, &bytes, ROWS, COLS), Ok(0.75));

    // Where the scale of row 6 is, and what makes the row zeros.
    let of_row_6 = |format, at: usize, zeros: &dyn Fn(&mut [u8])| {
        let bytes = encoded(format);
        let check = |scale: &[u8], zero: bool| {
            let mut bytes = bytes.clone();
            bytes[at..][..scale.len()].copy_from_slice(scale);
            if zero {
                zeros(&mut bytes);
            }
            check(format, &bytes, ROWS, COLS)
        };
        let expected = FormatError::Scales { offset: at, first: 0.75, second: 0.5 };
        let half = match format {
            Format::Iq1Bn => &[0x00, 0x38][..],
            _ => &[0, 0, 0, 0x3F],
        };
        assert_eq!(check(half, true), Err(expected.clone()), "{format}");
        assert_eq!(check(half, false), Err(expected), "{format}");
        let nothing = &[0; 4][..half.len()];
        assert!(matches!(check(nothing, false), Err(FormatError::Scales { .. })), "{format}");
        assert_eq!(check(nothing, true), Ok(0.75), "{format}");
    };
    let row = 2 + COLS / 64 * 13;
    let zeros = encode(Format::Iq1Bn, &[0; COLS], 1, COLS, 0.0).unwrap();
    of_row_6(Format::Iq1Bn, 6 * row, &|bytes| {
        bytes[6 * row + 2..7 * row].copy_from_slice(&zeros[2..]);
    });
    let rows = 4 * 4 + COLS;
    of_row_6(Format::Iq2BnR4, rows + 2 * 4, &|bytes| {
        for sixteen in bytes[rows + 16..2 * rows].as_chunks_mut::<16>().0 {
            sixteen[8..12].fill(0x55);
        }
    });
}

#[test]
fn scales_that_a_format_cannot_hold_are_refused() {
    for format in Format::TERNARY {
        let write = |d| encode(format, &[1; 32 * 768], 32, 768, d);
        if format == Format::HfPacked {
            assert!(write(1.0).is_ok());
            let error = write(0.5).unwrap_err();
            assert_eq!(error, FormatError::Unscalable { format, value: 0.5 });
            continue;
        }
        for d in [0.0, 0.5, -2.0, 1e-7] {
            let bytes = write(d).unwrap();
            assert!((check(format, &bytes, 32, 768).unwrap() - d).abs() < 1e-3, "{format}");
        }
        let half =
            matches!(format, Format::Tq1_0 | Format::Tq2_0 | Format::Iq1Bn | Format::BitNet32F16);
        for (d, refused) in [(f32::NAN, true), (f32::INFINITY, true), (1e5, half), (1e-9, half)] {
            match write(d) {
                Ok(_) => assert!(!refused, "{format} {d}"),
                Err(error) => {
                    assert!(refused && matches!(error, FormatError::Unscalable { .. }), "{error}");
                }
            }
        }
    }
}
