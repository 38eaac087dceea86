//! Layouts of ternary weights that files do not tell.

use std::fmt;
use std::str::FromStr;

use bitnet_kernels::Format;
use bitnet_kernels::format::{Encoding, Tiling};

/// A layout that nothing in a file tells, said by the user: I2_S as other builds of bitnet.cpp write it
/// (`i2s_arm`, `i2s_r4`), or the tiles of TL1 and TL2 (`tl1:BM,BK,bm` and `tl2:BM,BK,bm`, as bitnet.cpp
/// calls their rows, their columns and the rows of a strip).
///
/// ```
/// use bitnet_inference::ReadAs;
///
/// let tiles: ReadAs = "tl1:256,128,32".parse()?;
/// assert_eq!(tiles.to_string(), "tl1:256,128,32");
/// assert!("i2s".parse::<ReadAs>().is_err());
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadAs(Encoding);

impl ReadAs {
    /// How weights lie that a file has as `format`.
    pub(super) fn encoding(self, format: Format) -> Option<Encoding> {
        let stored = match self.0.format {
            Format::I2SArm | Format::I2SR4 => Format::I2S,
            tiled => tiled,
        };
        (stored == format).then_some(self.0)
    }
}

impl FromStr for ReadAs {
    type Err = String;

    fn from_str(name: &str) -> Result<ReadAs, String> {
        let unknown = || {
            format!(
                "{name} is no such layout: there are i2s_arm, i2s_r4, tl1:BM,BK,bm and tl2:BM,BK,bm"
            )
        };
        let plain = |format| Ok(ReadAs(Encoding { format, tiling: None }));
        let (format, tiles) = match name.split_once(':') {
            None if name == Format::I2SArm.name() => return plain(Format::I2SArm),
            None if name == Format::I2SR4.name() => return plain(Format::I2SR4),
            Some(("tl1", tiles)) => (Format::Tl1, tiles),
            Some(("tl2", tiles)) => (Format::Tl2, tiles),
            _ => return Err(unknown()),
        };
        let numbers: Option<Vec<usize>> = tiles.split(',').map(|n| n.parse().ok()).collect();
        match numbers.as_deref() {
            Some(&[rows, cols, strip]) if rows > 0 && cols > 0 && strip > 0 => {
                Ok(ReadAs(Encoding { format, tiling: Some(Tiling { rows, cols, strip }) }))
            }
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for ReadAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Encoding { format, tiling } = self.0;
        match tiling {
            None => write!(f, "{format}"),
            Some(Tiling { rows, cols, strip }) => write!(f, "{format}:{rows},{cols},{strip}"),
        }
    }
}
