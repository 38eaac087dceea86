//! What a forward pass works on: tokens, where they belong, and where keys and values lie.

use std::ops::Range;

use bitnet_kernels::Format;

use super::buffers::{Plan, Scratch};
use super::error::Error;
use super::gpu::{Gpu, Launches};
use super::memory::{Arena, piece};
use super::queue::{Cache, KV_BLOCK, Parts, Queue, Rows, SPAN};
use super::sys::{self, Graph, Pinned, Region};
use super::together::List;
use crate::PrecisionMode;
use crate::kernels::{GpuPasses, RowTiles, bucket};

/// A row that is not there.
const NOBODY: i32 = -1;

/// A token of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its id.
    pub token: u32,
    /// The sequence it belongs to.
    pub sequence: usize,
    /// Its place in the sequence.
    pub position: usize,
}

/// The rows of a pass, and which of them have outputs, in the memory of a device.
#[derive(Debug)]
pub struct Step {
    /// The same, as it goes to the device.
    staging: Pinned,
    region: Region,
    rows: Rows,
    outputs: Region,
    /// Positions of the rows that attention takes one by one.
    alone: Region,
    /// First and number of rows that it takes together.
    tiles: Region,
    capacity: usize,
    /// Which these are.
    together: RowTiles,
    /// Those of the last pass that was set.
    cut: Vec<Range<usize>>,
}

/// Lists of the table: tokens, sequences, positions, outputs, rows that attention takes one by one; and together, of which each has two
/// numbers.
const LISTS: usize = 7;

impl Step {
    /// Room for so many rows, of which attention takes some together.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`].
    pub fn new(gpu: &Gpu, capacity: usize, together: RowTiles) -> Result<Step, Error> {
        let each = piece(4 * capacity);
        let region = gpu.allocate("the table of tokens", LISTS * each, "take --device cpu")?;
        let list = |index: usize| region.part(index * each, 4 * capacity);
        let rows = Rows { token: list(0), sequence: list(1), position: list(2) };
        let [outputs, alone] = [3, 4].map(list);
        let tiles = region.part(5 * each, 2 * each);
        let staging = Pinned::new(&gpu.context(), LISTS * each)?;
        Ok(Step {
            staging,
            region,
            rows,
            outputs,
            alone,
            tiles,
            capacity,
            together,
            cut: Vec::new(),
        })
    }

    /// The rows.
    #[must_use]
    pub fn rows(&self) -> &Rows {
        &self.rows
    }

    /// The same rows, but those that attention takes together are not there.
    #[must_use]
    pub fn alone(&self) -> Rows {
        Rows { position: self.alone.clone(), ..self.rows.clone() }
    }

    /// Rows that attention takes together.
    pub(crate) fn tiles(&self) -> &Region {
        &self.tiles
    }

    /// The rows that have outputs, by number.
    pub(crate) fn outputs(&self) -> &Region {
        &self.outputs
    }

    /// Writes down the rows of the next pass, and which of them have outputs; behind them are rows that are not there,
    /// and outputs of the first row. All of a pass before must be done.
    ///
    /// # Panics
    ///
    /// If there are more rows than there is room for.
    pub fn set(&mut self, rows: &[Row], outputs: &[usize]) {
        assert!(rows.len() <= self.capacity && outputs.len() <= self.capacity, "room for the rows");
        let each = piece(4 * self.capacity);
        let bytes = self.staging.bytes_mut();
        let capacity = self.capacity;
        let mut put = |list: usize, count: usize, numbers: &mut dyn Iterator<Item = i32>| {
            let (words, _) = bytes[list * each..][..4 * count].as_chunks_mut();
            words.iter_mut().zip(numbers).for_each(|(word, number)| *word = number.to_le_bytes());
        };
        let int = |n: usize| i32::try_from(n).unwrap_or(NOBODY);
        let fill = std::iter::repeat(0);
        put(0, capacity, &mut rows.iter().map(|row| row.token.cast_signed()).chain(fill.clone()));
        put(1, capacity, &mut rows.iter().map(|row| int(row.sequence)).chain(fill.clone()));
        put(
            2,
            capacity,
            &mut rows.iter().map(|row| int(row.position)).chain(std::iter::repeat(NOBODY)),
        );
        put(3, capacity, &mut outputs.iter().map(|&row| int(row)).chain(fill.clone()));
        let sequences: Vec<_> = rows.iter().map(|row| row.sequence).collect();
        let mut alone: Vec<_> = rows.iter().map(|row| int(row.position)).collect();
        self.cut.clear();
        self.cut.extend(self.together.of(&sequences));
        let tiles = self.cut.iter().flat_map(|tile| [int(tile.start), int(tile.len())]);
        self.cut.iter().for_each(|tile| alone[tile.clone()].fill(NOBODY));
        put(4, capacity, &mut alone.into_iter().chain(std::iter::repeat(NOBODY)));
        put(5, 2 * capacity, &mut tiles.chain(fill));
    }

    /// The precision in which attention takes rows together.
    #[must_use]
    pub fn precision(&self) -> PrecisionMode {
        self.together.precision()
    }

    /// The rows of the last pass that attention takes together.
    #[must_use]
    pub fn cut(&self) -> &[Range<usize>] {
        &self.cut
    }

    /// Enqueues that the device gets what was [set](Step::set).
    ///
    /// # Errors
    ///
    /// [`Error::Driver`].
    pub fn send(&self, gpu: &Gpu) -> Result<(), Error> {
        sys::enqueue_upload(gpu.compute(), &self.region, &self.staging, self.region.bytes())?;
        gpu.traffic.up(self.region.bytes());
        Ok(())
    }
}

/// The shape of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheShape {
    /// Blocks of [`KV_BLOCK`] positions, of all layers.
    pub blocks: usize,
    /// Bytes of a block.
    pub block_bytes: usize,
    /// Sequences.
    pub sequences: usize,
    /// Positions of a sequence at most.
    pub context: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Numbers of a head.
    pub size: usize,
    /// How they are kept.
    pub format: Format,
}

impl Cache {
    /// An empty cache.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`], [`Error::Unsupported`] where there are no kernels for it.
    pub fn new(gpu: &Gpu, shape: CacheShape) -> Result<Cache, Error> {
        let CacheShape { blocks, block_bytes, sequences, context, kv_heads, size, format } = shape;
        let whole = if format == Format::Q8_0 { 32 } else { 2 };
        if !matches!(format, Format::F32 | Format::F16 | Format::Q8_0)
            || !size.is_multiple_of(whole)
        {
            let what = format!("keys and values in {} with heads of {size} numbers", format.name());
            return Err(Error::Unsupported { what });
        }
        let hint = "take a smaller --context, fewer sequences, or --kv q8_0";
        let table = context.div_ceil(KV_BLOCK);
        let tables = gpu.allocate("the tables of keys and values", 4 * sequences * table, hint)?;
        let blocks = gpu.allocate("keys and values", blocks * block_bytes, hint)?;
        // Blocks are read as a whole, and written position by position.
        sys::fill(gpu.compute(), &blocks, 0)?;
        sys::fill(gpu.compute(), &tables, 0)?;
        Ok(Cache { blocks, tables, block_bytes, table, kv_heads, size, format })
    }

    /// Writes down the blocks of a sequence from `first` on. All of a pass before must be done.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`].
    ///
    /// # Panics
    ///
    /// If the sequence cannot have as many.
    pub fn set_table(
        &self,
        gpu: &Gpu,
        sequence: usize,
        first: usize,
        blocks: &[u32],
    ) -> Result<(), Error> {
        assert!(first + blocks.len() <= self.table, "blocks of a sequence");
        let bytes: Vec<u8> = blocks.iter().flat_map(|block| block.to_le_bytes()).collect();
        let at = self.tables.part(4 * (sequence * self.table + first), bytes.len());
        sys::upload(gpu.compute(), &at, &bytes)?;
        gpu.traffic.up(bytes.len());
        Ok(())
    }

    /// The bytes of a block; waits for all that was enqueued before.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`].
    pub fn read_block(&self, gpu: &Gpu, block: u32) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; self.block_bytes];
        sys::download(gpu.compute(), &self.block(block), &mut bytes)?;
        gpu.traffic.down(bytes.len());
        Ok(bytes)
    }

    /// Writes a block.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`].
    pub fn write_block(&self, gpu: &Gpu, block: u32, bytes: &[u8]) -> Result<(), Error> {
        sys::upload(gpu.compute(), &self.block(block), bytes)?;
        gpu.traffic.up(bytes.len());
        Ok(())
    }

    pub(crate) fn block(&self, block: u32) -> Region {
        self.blocks.part(block as usize * self.block_bytes, self.block_bytes)
    }
}

impl Parts {
    /// Room for attention of so many rows to so many positions.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`].
    pub fn new(gpu: &Gpu, rows: usize, heads: usize, shape: &CacheShape) -> Result<Parts, Error> {
        // As passes are recorded: for some spans, or more that are not there.
        let spans = bucket(shape.context.div_ceil(SPAN));
        let bytes = 4 * rows * spans * heads * (shape.size + 2);
        let counters = 4 * rows * shape.kv_heads;
        let hint = "take a smaller --context";
        let region = gpu.allocate("parts of attention", piece(bytes) + piece(counters), hint)?;
        sys::fill(gpu.compute(), &region, 0)?;
        let mut arena = Arena::new(region);
        Ok(Parts { parts: arena.take(bytes), counters: arena.take(counters) })
    }
}

/// Operations that were recorded once, and can be enqueued again and again.
#[derive(Debug)]
pub struct Recorded {
    how: How,
    launches: Launches,
}

#[derive(Debug)]
enum How {
    Graph(Graph),
    List(List),
}

impl Recorded {
    /// Records what `enqueue` enqueues. Nothing of it is done.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`], and those of `enqueue`; [`Error::Unsupported`] where the device cannot do it in this way.
    pub fn new(
        (gpu, scratch): (&Gpu, &Scratch),
        way: GpuPasses,
        enqueue: impl FnOnce(&mut Queue<'_>) -> Result<(), Error>,
    ) -> Result<Recorded, Error> {
        if way == GpuPasses::Kernel {
            let mut queue = Queue::listing(gpu, scratch);
            enqueue(&mut queue)?;
            let list = List::new(gpu, queue.into_list())?;
            return Ok(Recorded { launches: list.launches(), how: How::List(list) });
        }
        // In a stream of its own: what others enqueue meanwhile is none of it.
        let stream = sys::new_stream(&gpu.context())?;
        let mut queue = Queue::apart(gpu, scratch, &stream);
        let graph = Graph::record(&stream, || enqueue(&mut queue))?;
        Ok(Recorded { how: How::Graph(graph), launches: queue.launches().clone() })
    }

    /// Enqueues all of it, and adds it to what was launched.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`].
    pub fn replay(&mut self, gpu: &Gpu, launches: &mut Launches) -> Result<(), Error> {
        match &mut self.how {
            How::Graph(graph) => graph.launch(gpu.compute())?,
            How::List(list) => list.enqueue(gpu)?,
        }
        launches.add_all(&self.launches);
        Ok(())
    }
}

impl Plan {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Plan {
        Plan::default()
    }
}
