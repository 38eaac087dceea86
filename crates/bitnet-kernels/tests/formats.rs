//! Damaged matrices are refused with the place of the damage.

use bitnet_kernels::Format;
use bitnet_kernels::format::{
    FormatError, MOST_COLS, Tiled, Tiling, check, decode, encode, payload,
};

/// As few rows as every format has.
const ROWS: usize = 32;
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
    for (format, places) in [
        (Format::I2S, vec![0, 1, 77, 4095]),
        (Format::Tq2_0, vec![0, 63, 66, 327]),
        (Format::Iq2Bn, vec![4, 131, 136, 32 * 132 - 1]),
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
        let columns = check(format, &bytes, ROWS, COLS + 4).unwrap_err();
        assert!(matches!(columns, FormatError::Columns { cols: 516, .. }), "{columns}");
        assert!(check(format, &bytes, usize::MAX / 64, COLS).is_err());
        assert!(check(format, &bytes, usize::MAX / 64 * 32, COLS).is_err());
    }
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

/// Shapes and tilings in which no two parameters are the same, ragged columns included.
fn tilings() -> Vec<Tiled> {
    let tiled = |format, (rows, cols), [bm, bk, strip]: [usize; 3]| {
        Tiled::new(format, rows, cols, Tiling { rows: bm, cols: bk, strip })
            .expect("tiles that fit")
    };
    vec![
        tiled(Format::Tl1, (32, 8), [32, 8, 32]),
        tiled(Format::Tl1, (192, 96), [96, 24, 32]),
        tiled(Format::Tl1, (256, 24), [128, 12, 64]),
        tiled(Format::Tl2, (32, 96), [32, 96, 32]),
        tiled(Format::Tl2, (192, 512), [96, 48, 32]),
        tiled(Format::Tl2, (64, 800), [64, 192, 32]),
        tiled(Format::Tl2, (32, 32), [32, 96, 32]),
    ]
}

#[test]
fn tiles_hold_every_weight_once() {
    for tiled in tilings() {
        let n = (0..).find(|&n| tiled.encode(&vec![0; n], 1.0).is_ok()).unwrap();
        let weights: Vec<i8> = (0..n).map(|i| ((i * i + 7 * i + i / 5) % 3) as i8 - 1).collect();
        let bytes = tiled.encode(&weights, -0.25).unwrap();
        assert_eq!(bytes.len(), tiled.payload());
        assert_eq!(tiled.check(&bytes), Ok(-0.25), "{tiled:?}");
        assert_eq!(tiled.decode(&bytes).unwrap(), weights, "{tiled:?}");
    }
}

#[test]
fn plain_tiles_do_not_depend_on_their_columns() {
    for (format, [narrow, wide]) in [(Format::Tl1, [8, 768]), (Format::Tl2, [48, 384])] {
        let weights = weights().repeat(3);
        let bytes = [narrow, wide].map(|cols| {
            let tiling = Tiling { cols, ..Tiling::plain(format) };
            Tiled::new(format, 64, 768, tiling).unwrap().encode(&weights, 1.0).unwrap()
        });
        assert_eq!(bytes[0], bytes[1], "{format}");
        assert_eq!(bytes[0], encode(format, &weights, 64, 768, 1.0).unwrap(), "{format}");
    }
}

#[test]
fn published_tiles_fit_their_shapes() {
    for (rows, cols) in [(1536, 1536), (3200, 8640), (8640, 3200), (4096, 14336), (1024, 4096)] {
        for format in [Format::Tl1, Format::Tl2] {
            let tiling = Tiling::published(format, rows, cols).unwrap();
            assert_eq!(Tiling::of(format, rows, cols), tiling);
            assert!(Tiled::new(format, rows, cols, tiling).is_ok(), "{format} {rows} x {cols}");
        }
    }
    // 2560 x 6912 of TL2, as bitnet.cpp counts its bytes.
    assert_eq!(payload(Format::Tl2, 2560, 6912), Ok(3_713_760));
    assert_eq!(Tiling::published(Format::Tl2, 2560, 6912), None);
}

#[test]
fn tiles_that_do_not_fit_are_refused() {
    for (format, rows, tiling) in [
        (Format::Tl1, 48, [32, 64, 32]),
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
        let [tile_rows, cols, strip] = tiling;
        let tiling = Tiling { rows: tile_rows, cols, strip };
        let error = Tiled::new(format, rows, 512, tiling).unwrap_err();
        assert_eq!(error, FormatError::Tiling { format, rows, cols: 512, tiling });
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
}

#[test]
fn scales_that_a_format_cannot_hold_are_refused() {
    for format in Format::TERNARY {
        let write = |d| encode(format, &[1; 32 * 768], 32, 768, d);
        for d in [0.0, 0.5, -2.0, 1e-7] {
            let bytes = write(d).unwrap();
            assert!((check(format, &bytes, 32, 768).unwrap() - d).abs() < 1e-3, "{format}");
        }
        let half = matches!(format, Format::Tq1_0 | Format::Tq2_0);
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
