//! What is asked of kernels, and which lines of the table answer.

use super::KernelRequirements;
use super::reason::Reason;
use crate::device::Device;
use crate::format::{Format, FormatError};
use crate::operation::{DataType, Operation};
use crate::packed;
use crate::registry::{KERNELS, Line};

/// What is asked of a kernel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    pub(super) device: Device,
    pub(super) format: Option<Format>,
    pub(super) operation: Operation,
    pub(super) data: DataType,
    /// Rows of activations, columns and rows of the matrix.
    pub(super) shape: Option<[usize; 3]>,
}

impl Question {
    pub(super) fn new(wanted: &KernelRequirements) -> Question {
        let &KernelRequirements { device, operation, format, data, input, output } = wanted;
        Question { device, format, operation, data, shape: Some([input[0], input[1], output[1]]) }
    }

    /// Whether a line is of the kind that is asked for.
    pub(super) fn fits(&self, line: &Line) -> bool {
        // Most lines end here.
        line.operation == self.operation
            && (Device::Cpu, self.operation.data()) == (self.device, self.data)
            && match (self.format, line.format) {
                (Some(format), Some(layout)) if line.operation.is_product() => {
                    layouts(format).contains(&layout)
                }
                (format, layout) => format == layout,
            }
    }

    /// Whether kernels of an operation and a format take the shape.
    pub(super) fn admits(
        &self,
        (operation, format): (Operation, Option<Format>),
    ) -> Result<(), Reason> {
        let Some([tokens, cols, rows]) = self.shape else {
            return Ok(());
        };
        match (operation, format) {
            (Operation::Gemv, _) if tokens != 1 => Err(Reason::Tokens { tokens }),
            (Operation::Gemv | Operation::Gemm, Some(layout)) => {
                let packed =
                    holds(self.format, rows, cols).and_then(|()| packed::width(layout, cols));
                packed.map(|_| ()).map_err(Reason::Shape)
            }
            (Operation::Head, Some(format)) => {
                format.row_bytes(cols).map(|_| ()).map_err(Reason::Shape)
            }
            _ => Ok(()),
        }
    }
}

/// Whether files hold matrices of a shape in a format. Whatever they hold can be packed.
pub(super) fn holds(format: Option<Format>, rows: usize, cols: usize) -> Result<(), FormatError> {
    let file = format.filter(|format| Format::TERNARY.contains(format));
    file.map_or(Ok(()), |format| format.check_shape(rows, cols))
}

/// The layouts that weights of a format are packed into for products; the layouts are their own.
pub(super) fn layouts(format: Format) -> &'static [Format] {
    match Format::PACKED.iter().position(|&layout| layout == format) {
        Some(place) => &Format::PACKED[place..=place],
        None if Format::TERNARY.contains(&format) => &Format::PACKED,
        None => &[],
    }
}

/// The formats of weights that an operation takes.
pub(super) fn weights(operation: Operation) -> Vec<Format> {
    if operation.is_product() {
        return Format::TERNARY.to_vec();
    }
    let lines = KERNELS.iter().filter(|line| line.operation == operation);
    lines.filter_map(|line| line.format).collect()
}
