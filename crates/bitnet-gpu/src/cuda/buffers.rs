//! What lies in the memory of a device.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bitnet_kernels::Format;

use super::error::Error;
use super::gpu::Gpu;
use super::memory::{Arena, piece};
use super::sys::{self, Region};
use crate::tiles;

/// Rows of floats `[rows, cols]`, in [scratch memory](Scratch).
#[derive(Clone, Copy, Debug)]
pub struct Floats {
    pub(crate) at: usize,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
}

/// Rows of quantised activations, in [scratch memory](Scratch).
#[derive(Clone, Copy, Debug)]
pub struct Quantized {
    /// Where the bytes are: `[rows, width]`.
    pub(crate) q: usize,
    /// Where the scales are, one for each row.
    pub(crate) scale: usize,
    /// Where the sums of the bytes of each row are.
    pub(crate) sum: usize,
    pub(crate) cols: usize,
}

/// What scratch memory will have: it is allocated when all is known.
#[derive(Debug, Default)]
pub struct Plan {
    bytes: Cell<usize>,
}

/// Memory for what a forward pass computes: zeros at first.
#[derive(Clone, Debug)]
pub struct Scratch {
    region: Region,
}

/// A ternary matrix `[rows, cols]`, in [tiles].
#[derive(Clone, Debug)]
pub struct Matrix {
    pub(crate) weights: Region,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) scale: f32,
}

/// Embeddings, or an output layer `[rows, cols]`.
#[derive(Clone, Debug)]
pub struct Table {
    pub(crate) data: Region,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) format: Format,
}

/// Numbers.
#[derive(Clone, Debug)]
pub struct Vector {
    pub(crate) data: Region,
    pub(crate) len: usize,
}

impl Table {
    /// Bytes of it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.data.bytes()
    }
}

impl Plan {
    fn take(&self, bytes: usize) -> usize {
        self.bytes.replace(self.bytes.get() + piece(bytes))
    }

    /// Rows of floats.
    pub fn floats(&self, rows: usize, cols: usize) -> Floats {
        Floats { at: self.take(4 * rows * cols), rows, cols }
    }

    /// Rows of quantised activations.
    pub fn quantized(&self, rows: usize, cols: usize) -> Quantized {
        let (q, scale) = (self.take(rows * tiles::width(cols)), self.take(4 * rows));
        Quantized { q, scale, sum: self.take(4 * rows), cols }
    }
}

impl Floats {
    /// Where they are, among all of a plan.
    #[must_use]
    pub fn place(&self) -> usize {
        self.at
    }
}

impl Scratch {
    /// All that was planned.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`].
    pub fn new(gpu: &Gpu, plan: &Plan) -> Result<Scratch, Error> {
        let hint = "close what else uses the device, or take --device cpu";
        let region = gpu.allocate("intermediate results", plan.bytes.get(), hint)?;
        sys::fill(gpu.compute(), &region, 0)?;
        Ok(Scratch { region })
    }

    /// The address of what is planned to be at `at`.
    pub(crate) fn address(&self, at: usize) -> u64 {
        self.region.address() + at as u64
    }

    /// Writes the first numbers of some floats.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`].
    pub fn write(&self, gpu: &Gpu, floats: &Floats, numbers: &[f32]) -> Result<(), Error> {
        let bytes = bytes_of(numbers);
        sys::upload(
            gpu.compute(),
            &self.region.part(floats.at, 4 * floats.rows * floats.cols),
            &bytes,
        )?;
        gpu.traffic.up(bytes.len());
        Ok(())
    }

    /// Writes rows of bytes `[rows, cols]`, which stand for themselves: their scales are one.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`].
    pub(crate) fn write_bytes(&self, gpu: &Gpu, to: &Quantized, rows: &[i8]) -> Result<(), Error> {
        let width = tiles::width(to.cols);
        let count = rows.len() / to.cols;
        let mut padded = vec![0; count * width];
        let mut sums = Vec::with_capacity(4 * count);
        for (row, padded) in rows.chunks(to.cols).zip(padded.chunks_mut(width)) {
            padded.iter_mut().zip(row).for_each(|(to, from)| *to = from.cast_unsigned());
            sums.extend(row.iter().map(|&x| i32::from(x)).sum::<i32>().to_le_bytes());
        }
        let ones = bytes_of(&vec![1.0; count]);
        for (at, bytes) in [(to.q, padded), (to.scale, ones), (to.sum, sums)] {
            sys::upload(gpu.compute(), &self.region.part(at, bytes.len()), &bytes)?;
            gpu.traffic.up(bytes.len());
        }
        Ok(())
    }

    /// The first rows of some floats; waits for all that was enqueued before.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`].
    pub fn read(&self, gpu: &Gpu, floats: &Floats, rows: usize) -> Result<Vec<f32>, Error> {
        let mut bytes = vec![0; 4 * rows.min(floats.rows) * floats.cols];
        sys::download(gpu.compute(), &self.region.part(floats.at, bytes.len()), &mut bytes)?;
        gpu.traffic.down(bytes.len());
        Ok(bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }
}

/// The bytes of numbers, the lowest first.
pub(crate) fn bytes_of(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// Puts what a model has into the memory of a device.
#[derive(Debug)]
pub struct Loader {
    gpu: Arc<Gpu>,
    arena: Arena,
}

impl Loader {
    /// Memory for so many bytes, which must be what [`Loader::matrix`] and the others take together.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`].
    pub fn new(gpu: &Arc<Gpu>, bytes: usize) -> Result<Loader, Error> {
        let hint = "take a smaller model, another device, or --device cpu";
        let arena = Arena::new(gpu.allocate("the weights", bytes, hint)?);
        Ok(Loader { gpu: Arc::clone(gpu), arena })
    }

    /// The device.
    #[must_use]
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    /// Bytes that a matrix takes.
    #[must_use]
    pub fn matrix_bytes(rows: usize, cols: usize) -> usize {
        piece(tiles::bytes(rows, cols))
    }

    /// Bytes that other things of so many bytes take.
    #[must_use]
    pub fn other_bytes(bytes: usize) -> usize {
        piece(bytes)
    }

    /// A ternary matrix, from its [tiles].
    ///
    /// # Errors
    ///
    /// [`Error::Driver`].
    ///
    /// # Panics
    ///
    /// If the tiles are not those of such a matrix.
    pub fn matrix(
        &mut self,
        packed: &[u8],
        (rows, cols): (usize, usize),
        scale: f32,
    ) -> Result<Matrix, Error> {
        assert_eq!(packed.len(), tiles::bytes(rows, cols), "tiles of the matrix");
        Ok(Matrix { weights: self.put(packed)?, rows, cols, scale })
    }

    /// A table of floats, half-precision numbers or bfloat16.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`], [`Error::Unsupported`] where it is of another format, or of a width that is no multiple of
    /// sixteen.
    pub fn table(
        &mut self,
        bytes: &[u8],
        (rows, cols): (usize, usize),
        format: Format,
    ) -> Result<Table, Error> {
        if !matches!(format, Format::F32 | Format::F16 | Format::Bf16) || !cols.is_multiple_of(16) {
            let what = format!("an embedding table in {} with {cols} columns", format.name());
            return Err(Error::Unsupported { what });
        }
        Ok(Table { data: self.put(bytes)?, rows, cols, format })
    }

    /// Numbers.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`].
    pub fn vector(&mut self, numbers: &[f32]) -> Result<Vector, Error> {
        Ok(Vector { data: self.put(&bytes_of(numbers))?, len: numbers.len() })
    }

    pub(super) fn take(&mut self, bytes: usize) -> Region {
        self.arena.take(bytes)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<Region, Error> {
        let region = self.take(bytes.len());
        sys::upload(self.gpu.copy(), &region, bytes)?;
        self.gpu.traffic.up(bytes.len());
        Ok(region)
    }
}

/// Transfers of a device, since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transfers {
    /// Copies to the device.
    pub to_device: u64,
    /// Bytes of these.
    pub bytes_to_device: u64,
    /// Copies from the device.
    pub to_host: u64,
    /// Bytes of these.
    pub bytes_to_host: u64,
    /// Copies to the device from the memory of others.
    pub from_peers: u64,
    /// Bytes of these.
    pub bytes_from_peers: u64,
}

impl Gpu {
    /// Transfers since it was opened.
    #[must_use]
    pub fn transfers(&self) -> Transfers {
        let get = |of: &AtomicU64| of.load(Ordering::Relaxed);
        Transfers {
            to_device: get(&self.traffic.to_device),
            bytes_to_device: get(&self.traffic.bytes_to_device),
            to_host: get(&self.traffic.to_host),
            bytes_to_host: get(&self.traffic.bytes_to_host),
            from_peers: get(&self.traffic.from_peers),
            bytes_from_peers: get(&self.traffic.bytes_from_peers),
        }
    }
}
