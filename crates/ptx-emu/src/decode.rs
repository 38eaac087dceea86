//! Statements to instructions.

use crate::functions;
use crate::inst::{
    Address, GroupProduct, Inst, Kind, Op, Operand, Product, Register, Shuffle, Special, Type,
    Vote, Window,
};
use crate::lex::Token;
use crate::parse::Names;

/// What a statement has behind its opcode.
#[derive(Debug)]
enum Argument<'a> {
    /// A name or a number.
    One(&'a str),
    /// `{a, b}`.
    Many(Vec<&'a str>),
    /// `[a + 4]`.
    Memory(&'a str, i64),
    /// `a|b`.
    Both(&'a str, &'a str),
}

/// An instruction whose parts are known by name.
struct Statement<'a, 'n> {
    parts: Vec<&'a str>,
    arguments: Vec<Argument<'a>>,
    /// The last one has a `!` before it.
    negated: bool,
    names: &'n Names<'a>,
}

type Result<T> = std::result::Result<T, String>;

/// Decodes a statement. The target of a branch is filled in later.
pub(crate) fn decode<'a>(tokens: &[Token<'a>], names: &Names<'a>) -> Result<Inst> {
    let line = tokens[0].line;
    let mut rest: Vec<&str> = tokens.iter().map(|token| token.text).collect();
    let mut guard = None;
    if rest[0] == "@" {
        let negated = rest[1] == "!";
        let at = 1 + usize::from(negated);
        let register = names.register(rest[at]).ok_or("no such predicate")?;
        guard = Some((register, !negated));
        rest.drain(..=at);
    }
    let opcode = rest.first().ok_or("an instruction expected")?;
    let (arguments, negated) = arguments(&rest[1..])?;
    let statement = Statement { parts: opcode.split('.').collect(), arguments, negated, names };
    Ok(Inst { guard, op: statement.op()?, line })
}

fn arguments<'a>(rest: &[&'a str]) -> Result<(Vec<Argument<'a>>, bool)> {
    let mut out = Vec::new();
    let mut negated = false;
    let mut rest = rest.iter().copied().peekable();
    while let Some(word) = rest.next() {
        let argument = match word {
            "," => continue,
            "!" => {
                negated = true;
                continue;
            }
            "{" => Argument::Many(
                rest.by_ref().take_while(|&word| word != "}").filter(|&word| word != ",").collect(),
            ),
            "[" => {
                let inside: Vec<_> = rest.by_ref().take_while(|&word| word != "]").collect();
                let offset =
                    |text: &str| text.parse().map_err(|_| format!("`{text}` is no offset"));
                match inside[..] {
                    [base] => Argument::Memory(base, 0),
                    [base, "+", by] => Argument::Memory(base, offset(by)?),
                    _ => return Err("an address that is not understood".to_owned()),
                }
            }
            one if rest.peek() == Some(&"|") => {
                rest.next();
                Argument::Both(one, rest.next().ok_or("a name expected")?)
            }
            one => Argument::One(one),
        };
        out.push(argument);
    }
    Ok((out, negated))
}

impl<'a> Statement<'a, '_> {
    fn op(&self) -> Result<Op> {
        let unknown = || format!("`{}` is not known", self.parts.join("."));
        let ty = || self.parts.last().and_then(|name| Type::of(name)).ok_or_else(unknown);
        let has = |part: &str| self.parts.contains(&part);
        Ok(match self.parts[..] {
            ["bra", ..] => Op::Branch(usize::MAX),
            ["ret" | "exit"] => Op::Return,
            ["trap"] => Op::Trap,
            ["ld" | "ldu", ..] => {
                let (out, at) = (self.outs(0)?, self.address(1)?);
                let acquires = has("acquire");
                Op::Load { window: self.window(), ty: ty()?, out, at, acquires }
            }
            ["st", ..] => {
                let (at, of) = (self.address(0)?, self.many(1)?);
                Op::Store { window: self.window(), ty: ty()?, of, at }
            }
            ["atom", ..] => self.atomic(ty()?, true).ok_or_else(unknown)??,
            ["red", ..] => self.atomic(ty()?, false).ok_or_else(unknown)??,
            ["bar" | "barrier", "warp", "sync"] => {
                Op::WarpBarrier { mask: self.operand(0, Type::U32)? }
            }
            ["bar" | "barrier", ..] if has("sync") || has("arrive") => Op::Barrier {
                id: self.operand(0, Type::U32)?,
                threads: (self.arguments.len() > 1)
                    .then(|| self.operand(1, Type::U32))
                    .transpose()?,
                waits: has("sync"),
            },
            ["shfl", "sync", how, "b32"] => self.shuffle(how).ok_or_else(unknown)??,
            ["vote", "sync", how, _] => {
                let how = match how {
                    "all" => Vote::All,
                    "any" => Vote::Any,
                    "uni" => Vote::Uniform,
                    "ballot" => Vote::Ballot,
                    _ => return Err(unknown()),
                };
                let of = self.operand(1, Type { kind: Kind::Predicate, bits: 1 })?;
                let (out, mask) = (self.register(0)?, self.operand(2, Type::U32)?);
                Op::Vote { how, out, of, negated: self.negated, mask }
            }
            ["activemask", "b32"] => Op::ActiveMask(self.register(0)?),
            ["redux", "sync", f, _] => {
                let ty = ty()?;
                let f = functions::reduction(f, ty).ok_or_else(unknown)?;
                let (of, mask) = (self.operand(1, ty)?, self.operand(2, Type::U32)?);
                Op::Reduce { f, ty, out: self.register(0)?, of, mask }
            }
            ["fence", "proxy", "async", ..] => Op::Show,
            ["membar" | "fence", ..] => Op::Fence,
            ["griddepcontrol" | "prefetch" | "prefetchu" | "nanosleep" | "discard", ..] => {
                Op::Nothing
            }
            ["mma", "sync", "aligned", ..] => self.multiply().ok_or_else(unknown)??,
            ["wmma", "load", "a" | "b", "sync", "aligned", "row", "m16n16k16", "shared", of] => {
                let out = self.all_outs(0)?;
                match (of, out.len()) {
                    ("f16", 8) | ("bf16", 4) => {}
                    _ => return Err("fragments of another length expected".to_owned()),
                }
                Op::LoadTile { out, at: self.address(1)?, stride: self.operand(2, Type::U32)? }
            }
            ["wmma", "mma", "sync", "aligned", "row", "row", "m16n16k16", ref types @ ..] => {
                let bfloat = match types {
                    ["f32", "f32"] => false,
                    ["f32", "bf16", "bf16", "f32"] => true,
                    _ => return Err(unknown()),
                };
                let (out, a) = (self.all_outs(0)?, self.many(1)?);
                let (b, c) = (self.many(2)?, self.many(3)?);
                let side = if bfloat { 4 } else { 8 };
                if (out.len(), a.len(), b.len(), c.len()) != (8, side, side, 8) {
                    return Err("fragments of other lengths expected".to_owned());
                }
                Op::MultiplyTiles { bfloat, out, a, b, c }
            }
            ["wmma", "store", "d", "sync", "aligned", "row", "m16n16k16", "shared", "f32"] => {
                let of = self.many(1)?;
                if of.len() != 8 {
                    return Err("fragments of another length expected".to_owned());
                }
                Op::StoreTile { at: self.address(0)?, of, stride: self.operand(2, Type::U32)? }
            }
            ["wgmma", "fence", "sync", "aligned"] => Op::GroupFence,
            ["wgmma", "commit_group", "sync", "aligned"] => Op::GroupCommit,
            ["wgmma", "wait_group", "sync", "aligned"] => {
                Op::GroupWait(self.immediate(0)? as usize)
            }
            ["wgmma", "mma_async", "sync", "aligned", shape, "s32", a, b] => {
                self.group_product(shape, [a, b]).ok_or_else(unknown)??
            }
            ["ldmatrix", "sync", "aligned", "m8n8", .., "b16"] => Op::LoadMatrix {
                transposed: has("trans"),
                out: self.all_outs(0)?,
                at: self.address(1)?,
            },
            ["cp", "async", "commit_group"] => Op::CopyCommit,
            ["cp", "async", "wait_group"] => Op::CopyWait(Some(self.immediate(0)? as usize)),
            ["cp", "async", "wait_all"] => Op::CopyWait(None),
            ["cp", "async", "cg" | "ca", ..] => {
                let bytes = self.immediate(2)? as usize;
                let only =
                    (self.arguments.len() > 3).then(|| self.operand(3, Type::U32)).transpose()?;
                Op::CopyAsync { bytes, to: self.address(0)?, from: self.address(1)?, only }
            }
            ["setp", name, ..] => self.compare(name, ty()?).ok_or_else(unknown)??,
            ["cvt", "rn", "f16x2" | "bf16x2", _] => self.compute(ty()?).ok_or_else(unknown)??,
            ["cvt", ..] => self.convert().ok_or_else(unknown)??,
            ["mov", _] if matches!(self.arguments[0], Argument::Many(_)) => {
                let (out, ty) = (self.outs(0)?, ty()?);
                Op::Unpack { bits: ty.bits / out.len() as u32, out, of: self.operand(1, ty)? }
            }
            ["mov", _] if matches!(self.arguments[1], Argument::Many(_)) => {
                let (of, ty) = (self.many(1)?, ty()?);
                Op::Pack { bits: ty.bits / of.len() as u32, out: self.register(0)?, of }
            }
            [name @ ("mul" | "mad"), "wide", _] => {
                let ty = ty()?;
                let (f, wide) = functions::wide(ty, name == "mad").ok_or_else(unknown)?;
                let of = (1..self.arguments.len())
                    .map(|i| self.operand(i, if i == 3 { wide } else { ty }));
                Op::Compute { f, ty: wide, out: self.register(0)?, of: of.collect::<Result<_>>()? }
            }
            _ => self.compute(ty()?).ok_or_else(unknown)??,
        })
    }

    /// What is one function of its operands.
    fn compute(&self, ty: Type) -> Option<Result<Op>> {
        // Rounding to nearest is what there is without a word for it.
        let plain = ["add", "sub", "mul"];
        let mut parts: Vec<&str> = self.parts[..self.parts.len() - 1].to_vec();
        if matches!(parts[..], [name, "rn"] if plain.contains(&name)) {
            parts.pop();
        }
        let f = functions::function(&parts, ty)?;
        Some((|| {
            let of =
                (1..self.arguments.len()).map(|i| self.operand(i, ty)).collect::<Result<_>>()?;
            Ok(Op::Compute { f, ty, out: self.register(0)?, of })
        })())
    }

    fn compare(&self, name: &str, ty: Type) -> Option<Result<Op>> {
        let f = functions::comparison(name, ty)?;
        // No combination with a further predicate is known.
        if self.parts.len() != 3 {
            return None;
        }
        Some((|| {
            let out = match self.arguments[0] {
                Argument::One(name) => [self.out(name)?, None],
                Argument::Both(a, b) => [self.out(a)?, self.out(b)?],
                _ => return Err("a predicate expected".to_owned()),
            };
            Ok(Op::Compare { f, ty, out, of: vec![self.operand(1, ty)?, self.operand(2, ty)?] })
        })())
    }

    fn convert(&self) -> Option<Result<Op>> {
        let [modes @ .., to, from] = &self.parts[1..] else { return None };
        let (to, from) = (Type::of(to)?, Type::of(from)?);
        let f = functions::conversion(modes, to, from)?;
        Some((|| Ok(Op::Convert { f, out: self.register(0)?, of: self.operand(1, from)? }))())
    }

    fn atomic(&self, ty: Type, gives: bool) -> Option<Result<Op>> {
        let name = self.parts[self.parts.len() - 2];
        let f = functions::atomic(name, ty)?;
        Some((|| {
            let first = usize::from(gives);
            let of = |i| match self.arguments.get(first + 1 + i) {
                Some(_) => self.operand(first + 1 + i, ty),
                None => Ok(Operand::Immediate(0)),
            };
            let out = gives.then(|| self.register(0)).transpose()?;
            let at = self.address(first)?;
            Ok(Op::Atomic { window: self.window(), f, ty, out, at, of: [of(0)?, of(1)?] })
        })())
    }

    fn shuffle(&self, how: &str) -> Option<Result<Op>> {
        let how = match how {
            "up" => Shuffle::Up,
            "down" => Shuffle::Down,
            "bfly" => Shuffle::Butterfly,
            "idx" => Shuffle::Index,
            _ => return None,
        };
        Some((|| {
            let (out, within) = match self.arguments[0] {
                Argument::Both(out, within) => (out, self.out(within)?),
                Argument::One(out) => (out, None),
                _ => return Err("a register expected".to_owned()),
            };
            let out = self.out(out)?.ok_or("a register expected")?;
            let operand = |i| self.operand(i, Type::U32);
            let of = [operand(1)?, operand(2)?, operand(3)?];
            Ok(Op::Shuffle { how, out, within, of, mask: operand(4)? })
        })())
    }

    /// A product of four warps, whose first matrix is in registers.
    fn group_product(&self, shape: &str, [a, b]: [&str; 2]) -> Option<Result<Op>> {
        let columns: usize = shape.strip_prefix("m64n")?.strip_suffix("k32")?.parse().ok()?;
        let step = if columns <= 32 { 8 } else { 16 };
        if !(1..=256).contains(&columns) || !columns.is_multiple_of(step) {
            return None;
        }
        let signed = [byte(a)?, byte(b)?];
        Some((|| {
            let (out, a) = (self.all_outs(0)?, self.all_outs(1)?);
            if (2 * out.len(), a.len()) != (columns, 4) {
                return Err("fragments of other lengths expected".to_owned());
            }
            let b = self.operand(2, Type { kind: Kind::Bits, bits: 64 })?;
            let add = self.operand(3, Type { kind: Kind::Predicate, bits: 1 })?;
            Ok(Op::GroupMultiply(GroupProduct { signed, out, a, b, add }))
        })())
    }

    fn multiply(&self) -> Option<Result<Op>> {
        let product = match self.parts[3..] {
            ["m16n8k32", "row", "col", "s32", a, b, "s32"] => {
                Product::Bytes { signed: [byte(a)?, byte(b)?] }
            }
            ["m16n8k16", "row", "col", "f32", "f16", "f16", "f32"] => {
                Product::Halves { bfloat: false }
            }
            ["m16n8k16", "row", "col", "f32", "bf16", "bf16", "f32"] => {
                Product::Halves { bfloat: true }
            }
            _ => return None,
        };
        Some((|| {
            let (out, a) = (self.all_outs(0)?, self.many(1)?);
            let (b, c) = (self.many(2)?, self.many(3)?);
            if (out.len(), a.len(), b.len(), c.len()) != (4, 4, 2, 4) {
                return Err("fragments of other lengths expected".to_owned());
            }
            Ok(Op::Multiply { product, out, a, b, c })
        })())
    }

    fn window(&self) -> Window {
        let spaces = self.parts.iter().find_map(|part| match *part {
            "global" => Some(Window::Global),
            "shared" => Some(Window::Shared),
            "param" => Some(Window::Param),
            _ => None,
        });
        spaces.unwrap_or(Window::Generic)
    }

    /// A register, or nothing for `_`.
    fn out(&self, name: &str) -> Result<Option<Register>> {
        if name == "_" {
            return Ok(None);
        }
        Ok(Some(self.names.register(name).ok_or_else(|| format!("no register `{name}`"))?))
    }

    fn register(&self, index: usize) -> Result<Register> {
        match self.arguments.get(index) {
            Some(Argument::One(name)) => {
                self.out(name)?.ok_or_else(|| "a register expected".to_owned())
            }
            _ => Err("a register expected".to_owned()),
        }
    }

    fn outs(&self, index: usize) -> Result<Vec<Option<Register>>> {
        match self.arguments.get(index) {
            Some(Argument::One(name)) => Ok(vec![self.out(name)?]),
            Some(Argument::Many(names)) => names.iter().map(|name| self.out(name)).collect(),
            _ => Err("registers expected".to_owned()),
        }
    }

    fn all_outs(&self, index: usize) -> Result<Vec<Register>> {
        let outs = self.outs(index)?;
        outs.into_iter().map(|out| out.ok_or_else(|| "a register expected".to_owned())).collect()
    }

    fn many(&self, index: usize) -> Result<Vec<Operand>> {
        let ty = self.parts.last().and_then(|name| Type::of(name)).unwrap_or(Type::U32);
        match self.arguments.get(index) {
            Some(Argument::One(name)) => Ok(vec![self.value(name, ty)?]),
            Some(Argument::Many(names)) => names.iter().map(|name| self.value(name, ty)).collect(),
            _ => Err("operands expected".to_owned()),
        }
    }

    fn operand(&self, index: usize, ty: Type) -> Result<Operand> {
        match self.arguments.get(index) {
            Some(Argument::One(name)) => self.value(name, ty),
            _ => Err("an operand expected".to_owned()),
        }
    }

    fn immediate(&self, index: usize) -> Result<u64> {
        match self.operand(index, Type::U32)? {
            Operand::Immediate(value) => Ok(value),
            _ => Err("a number expected".to_owned()),
        }
    }

    fn address(&self, index: usize) -> Result<Address> {
        match self.arguments.get(index) {
            Some(Argument::Memory(base, offset)) => {
                let base = self.value(base, Type { kind: Kind::Unsigned, bits: 64 })?;
                Ok(Address { base, offset: offset.cast_unsigned() })
            }
            _ => Err("an address expected".to_owned()),
        }
    }

    /// A register, special register, symbol or number.
    fn value(&self, name: &str, ty: Type) -> Result<Operand> {
        if let Some(register) = self.names.register(name) {
            return Ok(Operand::Register(register));
        }
        if let Some(&address) = self.names.shared.get(name).or_else(|| self.names.params.get(name))
        {
            return Ok(Operand::Immediate(address));
        }
        if let Some(name) = name.strip_prefix('%') {
            let axis = |of: fn(usize) -> Special, axis| {
                Some(of(["x", "y", "z"].iter().position(|a| *a == axis)?))
            };
            let special = match name.split_once('.') {
                Some(("tid", a)) => axis(Special::Thread, a),
                Some(("ntid", a)) => axis(Special::Threads, a),
                Some(("ctaid", a)) => axis(Special::Block, a),
                Some(("nctaid", a)) => axis(Special::Blocks, a),
                _ => match name {
                    "laneid" => Some(Special::Lane),
                    "warpid" => Some(Special::Warp),
                    "clock64" | "globaltimer" => Some(Special::Clock),
                    "dynamic_smem_size" => Some(Special::Dynamic),
                    _ => None,
                },
            };
            return special.map(Operand::Special).ok_or_else(|| format!("no register `%{name}`"));
        }
        number(name)
            .map(|value| Operand::Immediate(value & ty.mask()))
            .ok_or_else(|| format!("`{name}` is not known"))
    }
}

/// Whether a type of bytes is signed.
fn byte(name: &str) -> Option<bool> {
    match name {
        "s8" => Some(true),
        "u8" => Some(false),
        _ => None,
    }
}

/// A number as PTX writes it; floats are their bits.
fn number(text: &str) -> Option<u64> {
    if let Some(bits) = text.strip_prefix("0f").or_else(|| text.strip_prefix("0d")) {
        return u64::from_str_radix(bits, 16).ok();
    }
    if let Some(hex) = text.strip_prefix("0x") {
        return u64::from_str_radix(hex.trim_end_matches('U'), 16).ok();
    }
    let plain = text.trim_end_matches('U');
    plain.parse::<i64>().map(i64::cast_unsigned).or_else(|_| plain.parse()).ok()
}
