//! Matrix shapes that matter, shared by tests and benches.

/// A linear layer of a model: `[rows, cols]`, rows = output features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
}

/// The linear layers of BitNet b1.58 2B-4T: attention output, key and value, gate and up, down.
pub const BITNET_2B_4T: [Shape; 4] = [
    Shape { rows: 2560, cols: 2560 },
    Shape { rows: 640, cols: 2560 },
    Shape { rows: 6912, cols: 2560 },
    Shape { rows: 2560, cols: 6912 },
];

/// Small shapes for tests: one block, ragged rows, rows that fill no panel and several, widths on
/// both sides of where 16-bit lanes have to be emptied and of what is unpacked at a time.
pub const RAGGED: [Shape; 9] = [
    Shape { rows: 1, cols: 128 },
    Shape { rows: 2, cols: 512 },
    Shape { rows: 3, cols: 384 },
    Shape { rows: 5, cols: 2048 },
    Shape { rows: 32, cols: 1024 },
    Shape { rows: 33, cols: 1152 },
    Shape { rows: 64, cols: 256 },
    Shape { rows: 71, cols: 768 },
    Shape { rows: 31, cols: 4352 },
];
