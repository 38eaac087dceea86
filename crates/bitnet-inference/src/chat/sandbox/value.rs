//! The lists and maps of templates, which know how much there is in them.
//!
//! A list can hold another one many times, so that little memory stands for much to walk over, and it
//! can lie so deep in others that walking or dropping it overflows the stack. So all lists and maps are
//! of the types here: each walk over one is paid for, and what lies too deep is not made.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use indexmap::IndexMap;
use minijinja::value::{Enumerator, Object, ObjectRepr, ValueKind};
use minijinja::{Error, ErrorKind, Value};

use super::python;

/// How deep lists and maps may lie in each other.
const DEEPEST: usize = 100;

/// Bytes that a value takes in a list, about.
const SLOT: usize = 32;

/// What a rendering may still walk over and build, in bytes.
#[derive(Debug)]
pub(super) struct Meter(AtomicUsize);

impl Meter {
    pub(super) fn new(bytes: usize) -> Arc<Meter> {
        Arc::new(Meter(AtomicUsize::new(bytes)))
    }

    /// Pays for so many bytes; false, from then on for ever, if there is not enough left.
    pub(super) fn take(&self, bytes: usize) -> bool {
        let left = self.0.load(Ordering::Relaxed);
        self.0.store(left.saturating_sub(bytes), Ordering::Relaxed);
        left > bytes
    }

    /// As [`Meter::take`], with an error.
    pub(super) fn charge(&self, bytes: usize) -> Result<(), Error> {
        if self.take(bytes) { Ok(()) } else { Err(Error::from(ErrorKind::OutOfFuel)) }
    }

    /// Whether more was asked for than there was.
    pub(super) fn is_spent(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

/// A list, or a tuple, which is the same here.
pub(super) struct List {
    pub(super) items: Vec<Value>,
    /// What a walk costs.
    cost: usize,
    depth: usize,
    meter: Arc<Meter>,
}

/// A map in the order in which it was made.
pub(super) struct Map {
    pub(super) entries: IndexMap<Value, Value>,
    /// What a walk costs.
    cost: usize,
    depth: usize,
    meter: Arc<Meter>,
}

impl List {
    /// The value of a list of values that were [kept](keep).
    pub(super) fn make(meter: &Arc<Meter>, items: Vec<Value>) -> Result<Value, Error> {
        meter.charge(items.len().saturating_add(2).saturating_mul(SLOT))?;
        let (cost, depth) = measure(items.iter())?;
        Ok(Value::from_object(List { items, cost, depth, meter: Arc::clone(meter) }))
    }

    /// Pays for a walk; false if there is not enough left.
    pub(super) fn walk(&self) -> bool {
        self.meter.take(self.cost)
    }
}

impl Map {
    /// The value of a map of values that were [kept](keep).
    pub(super) fn make(
        meter: &Arc<Meter>,
        entries: impl IntoIterator<Item = (Value, Value)>,
    ) -> Result<Value, Error> {
        let mut map = IndexMap::new();
        for (key, value) in entries {
            meter.charge(2 * SLOT + key.as_str().map_or(0, str::len))?;
            if key.as_object().is_some() {
                return Err(refused(format!("a {} as the key of a map", key.kind())));
            }
            map.insert(key, value);
        }
        let (cost, depth) = measure(map.iter().flat_map(|(key, value)| [key, value]))?;
        Ok(Value::from_object(Map { entries: map, cost, depth, meter: Arc::clone(meter) }))
    }

    /// Pays for a walk; false if there is not enough left.
    pub(super) fn walk(&self) -> bool {
        self.meter.take(self.cost)
    }
}

/// What a walk over some values costs that are in one list, and how deep it goes.
fn measure<'v>(values: impl Iterator<Item = &'v Value>) -> Result<(usize, usize), Error> {
    let (mut cost, mut deepest) = (SLOT, 0);
    for value in values {
        cost = cost.saturating_add(SLOT + value.as_str().map_or(0, str::len));
        let list = value.downcast_object_ref::<List>().map(|list| list.depth);
        let map = value.downcast_object_ref::<Map>().map(|map| map.depth);
        deepest = deepest.max(list.or(map).unwrap_or(0));
    }
    if deepest >= DEEPEST {
        return Err(refused(format!("more than {DEEPEST} lists and maps in each other")));
    }
    Ok((cost, deepest + 1))
}

/// A value that can be stored: one without parts, one of our lists or maps, or a list of such.
///
/// # Errors
///
/// Where it is one that changes or that can hold itself, such as a namespace, and where the meter is
/// spent.
pub(super) fn keep(meter: &Arc<Meter>, value: Value) -> Result<Value, Error> {
    let Some(object) = value.as_object() else { return Ok(value) };
    if object.downcast_ref::<List>().is_some() || object.downcast_ref::<Map>().is_some() {
        return Ok(value);
    }
    if !matches!(object.repr(), ObjectRepr::Seq | ObjectRepr::Iterable) {
        return Err(refused(format!("to keep `{}` as a value", name(&value))));
    }
    let mut items = Vec::new();
    for item in value.try_iter()?.checked() {
        meter.charge(SLOT)?;
        items.push(keep(meter, item?)?);
    }
    List::make(meter, items)
}

/// What a template may not do.
pub(super) fn refused(what: impl fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("{what} is not supported here"))
}

/// What a value is, for messages.
pub(super) fn name(value: &Value) -> String {
    match value.kind() {
        ValueKind::Map if value.downcast_object_ref::<Map>().is_none() => {
            "namespace, loop or macro".to_owned()
        }
        kind => kind.to_string(),
    }
}

impl Object for List {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.items.get(key.as_usize()?).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        if self.walk() { Enumerator::Seq(self.items.len()) } else { Enumerator::Empty }
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.items.len())
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An error would panic in those who ask; that the meter is spent is seen later.
        let text = python::text(&self.meter, &Value::from_dyn_object(Arc::clone(self)));
        f.write_str(&text.unwrap_or_default())
    }
}

impl Object for Map {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let length = key.as_str().map_or(0, str::len);
        if self.meter.take(length) { self.entries.get(key).cloned() } else { None }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        if !self.walk() {
            return Enumerator::Empty;
        }
        Enumerator::Values(self.entries.keys().cloned().collect())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.entries.len())
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = python::text(&self.meter, &Value::from_dyn_object(Arc::clone(self)));
        f.write_str(&text.unwrap_or_default())
    }
}

// Messages of errors may show them, and nobody pays for that.
impl fmt::Debug for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[list of {}]", self.items.len())
    }
}

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{map of {}}}", self.entries.len())
    }
}
