//! PTX text to a module of kernels.

use std::collections::HashMap;

use crate::decode::decode;
use crate::error::Error;
use crate::inst::{Inst, Op, Register, Type};
use crate::lex::{Token, lex};

/// A parsed PTX text.
pub struct Module {
    /// The version of the language, as `8.4`.
    pub version: String,
    /// The devices that it is for, as `sm_80`.
    pub target: String,
    pub(crate) entries: HashMap<String, Entry>,
    pub(crate) lines: Vec<String>,
}

/// A kernel.
pub(crate) struct Entry {
    pub(crate) params: Vec<Param>,
    /// Bytes of all parameters.
    pub(crate) param_bytes: usize,
    /// Threads of a block, at most or exactly.
    pub(crate) threads: Option<Threads>,
    /// Bytes of shared memory that it always has, and where the dynamic follow.
    pub(crate) shared: usize,
    pub(crate) registers: Vec<Named>,
    pub(crate) code: Vec<Inst>,
}

/// A register, and the bits that it has.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) mask: u64,
}

/// How many threads a block may have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Threads {
    pub(crate) of: [u32; 3],
    pub(crate) exactly: bool,
}

/// A parameter of a kernel.
#[derive(Clone, Debug)]
pub(crate) struct Param {
    pub(crate) offset: usize,
    pub(crate) bytes: usize,
}

impl Module {
    /// Parses a text.
    ///
    /// # Errors
    ///
    /// [`Error::Syntax`].
    pub fn parse(text: &str) -> Result<Module, Error> {
        let lines: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
        let mut parser = Parser { tokens: lex(text), next: 0, lines: &lines, dynamic: Vec::new() };
        let (mut version, mut target) = (String::new(), String::new());
        let mut entries = HashMap::new();
        while let Some(token) = parser.peek() {
            parser.next += 1;
            match token.text {
                ".version" => version = parser.word()?.to_owned(),
                ".target" => target = parser.word()?.to_owned(),
                ".address_size" => parser.expect("64")?,
                ".visible" | ".weak" => {}
                ".entry" => {
                    let (name, entry) = parser.entry()?;
                    entries.insert(name, entry);
                }
                ".extern" => parser.dynamic_shared()?,
                _ => return Err(parser.error(token, "not known here")),
            }
        }
        Ok(Module { version, target, entries, lines })
    }

    /// The names of its kernels, sorted.
    #[must_use]
    pub fn kernels(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.entries.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    /// Bytes of shared memory that a block of a kernel has besides those that a launch asks for.
    #[must_use]
    pub fn static_shared(&self, kernel: &str) -> Option<usize> {
        self.entries.get(kernel).map(|entry| entry.shared)
    }

    /// Where the parameters of a kernel lie among the bytes of its arguments: offsets and lengths.
    #[must_use]
    pub fn params(&self, kernel: &str) -> Option<Vec<(usize, usize)>> {
        let entry = self.entries.get(kernel)?;
        Some(entry.params.iter().map(|param| (param.offset, param.bytes)).collect())
    }
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    next: usize,
    lines: &'a [String],
    /// Names and alignments of shared memory whose size a launch says: all begin at one place.
    dynamic: Vec<(&'a str, usize)>,
}

/// What names mean in the body of a kernel.
#[derive(Default)]
pub(crate) struct Names<'a> {
    /// Registers, the innermost scope last.
    scopes: Vec<HashMap<String, Register>>,
    registers: Vec<Named>,
    /// Addresses of shared memory.
    pub(crate) shared: HashMap<&'a str, u64>,
    /// Offsets of parameters.
    pub(crate) params: HashMap<String, u64>,
}

impl Names<'_> {
    /// The register of this name.
    pub(crate) fn register(&self, name: &str) -> Option<Register> {
        self.scopes.iter().rev().find_map(|scope| scope.get(name).copied())
    }

    fn declare(&mut self, name: String, ty: Type) {
        let register = self.registers.len();
        self.registers.push(Named { name: name.clone(), mask: ty.mask() });
        if let Some(scope) = self.scopes.last_mut() {
            scope.insert(name, register);
        }
    }
}

/// A variable: its alignment, its name, its bytes.
type Variable<'a> = (usize, &'a str, usize);

/// A branch whose label is not known yet: the instruction, the label, where it is.
type Open<'a> = (usize, Token<'a>);

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.next).copied()
    }

    fn token(&mut self) -> Result<Token<'a>, Error> {
        let token = self.peek().ok_or_else(|| self.end())?;
        self.next += 1;
        Ok(token)
    }

    fn end(&self) -> Error {
        let (line, what) = (self.lines.len(), "the text ends".to_owned());
        Error::Syntax { line, what, text: String::new() }
    }

    fn error(&self, token: Token<'_>, what: impl Into<String>) -> Error {
        let text = self.lines[token.line - 1].clone();
        Error::Syntax { line: token.line, what: format!("`{}`: {}", token.text, what.into()), text }
    }

    fn word(&mut self) -> Result<&'a str, Error> {
        Ok(self.token()?.text)
    }

    fn expect(&mut self, text: &str) -> Result<(), Error> {
        let token = self.token()?;
        if token.text == text {
            Ok(())
        } else {
            Err(self.error(token, format!("`{text}` expected")))
        }
    }

    fn eat(&mut self, text: &str) -> bool {
        let found = self.peek().is_some_and(|token| token.text == text);
        self.next += usize::from(found);
        found
    }

    fn number<T: std::str::FromStr>(&mut self) -> Result<T, Error> {
        let token = self.token()?;
        token.text.parse().map_err(|_| self.error(token, "a number expected"))
    }

    fn ty(&mut self) -> Result<Type, Error> {
        let token = self.token()?;
        let ty = token.text.strip_prefix('.').and_then(Type::of);
        ty.ok_or_else(|| self.error(token, "a type expected"))
    }

    /// `.align 8 .b8 name[64]`, or `.u64 name`.
    fn variable(&mut self) -> Result<Variable<'a>, Error> {
        let align = if self.eat(".align") { Some(self.number()?) } else { None };
        let ty = self.ty()?;
        if self.eat(".ptr") {
            while self.peek().is_some_and(|token| token.text.starts_with('.')) {
                if self.word()? == ".align" {
                    self.next += 1;
                }
            }
        }
        let name = self.word()?;
        let count = if self.eat("[") {
            let count = if self.eat("]") { 0 } else { self.number()? };
            if count > 0 {
                self.expect("]")?;
            }
            count
        } else {
            1
        };
        Ok((align.unwrap_or(ty.bytes()), name, count * ty.bytes()))
    }

    /// `.shared .align 16 .b8 name[];` behind `.extern`.
    fn dynamic_shared(&mut self) -> Result<(), Error> {
        self.expect(".shared")?;
        let (align, name, _) = self.variable()?;
        self.dynamic.push((name, align));
        self.expect(";")
    }

    fn entry(&mut self) -> Result<(String, Entry), Error> {
        let name = self.word()?.to_owned();
        let mut names = Names::default();
        let (params, param_bytes) = self.params(&mut names)?;
        let mut threads = None;
        while !self.eat("{") {
            let token = self.token()?;
            match token.text {
                ".maxntid" | ".reqntid" => {
                    let exactly = token.text == ".reqntid";
                    let mut of = [self.number()?, 1, 1];
                    for of in &mut of[1..] {
                        if self.eat(",") {
                            *of = self.number()?;
                        }
                    }
                    threads = Some(Threads { of, exactly });
                }
                ".minnctapersm" | ".maxnreg" => self.next += 1,
                _ => return Err(self.error(token, "not known here")),
            }
        }
        let (code, shared) = self.body(&mut names)?;
        let registers = names.registers;
        Ok((name, Entry { params, param_bytes, threads, shared, registers, code }))
    }

    fn params(&mut self, names: &mut Names<'a>) -> Result<(Vec<Param>, usize), Error> {
        let (mut params, mut end) = (Vec::new(), 0_usize);
        if !self.eat("(") || self.eat(")") {
            return Ok((params, end));
        }
        loop {
            self.expect(".param")?;
            let (align, name, bytes) = self.variable()?;
            let offset = end.next_multiple_of(align);
            end = offset + bytes;
            names.params.insert(name.to_owned(), offset as u64);
            params.push(Param { offset, bytes });
            if !self.eat(",") {
                self.expect(")")?;
                return Ok((params, end));
            }
        }
    }

    /// The code of a kernel, and its bytes of shared memory.
    fn body(&mut self, names: &mut Names<'a>) -> Result<(Vec<Inst>, usize), Error> {
        names.scopes.push(HashMap::new());
        // The dynamic memory begins behind all other: nothing is known of it until the end.
        let (statics, align) = self.shared_of_body()?;
        let mut top = 0;
        for (align, name, bytes) in statics {
            top = usize::next_multiple_of(top, align);
            names.shared.insert(name, top as u64);
            top += bytes;
        }
        top = top.next_multiple_of(align);
        for (name, _) in &self.dynamic {
            names.shared.insert(name, top as u64);
        }
        let mut code: Vec<Inst> = Vec::new();
        let mut labels: HashMap<&str, usize> = HashMap::new();
        let mut open: Vec<Open<'a>> = Vec::new();
        loop {
            let token = self.token()?;
            match token.text {
                "{" => names.scopes.push(HashMap::new()),
                "}" => {
                    names.scopes.pop();
                    if names.scopes.is_empty() {
                        break;
                    }
                }
                ";" => {}
                ".reg" => self.registers(names)?,
                ".shared" => {
                    self.variable()?;
                    self.expect(";")?;
                }
                ".pragma" => {
                    self.next += 1;
                    self.expect(";")?;
                }
                text if text.starts_with('.') => return Err(self.error(token, "not known here")),
                text => {
                    if self.eat(":") {
                        labels.insert(text, code.len());
                        continue;
                    }
                    self.next -= 1;
                    let statement = self.statement()?;
                    let inst =
                        decode(&statement, names).map_err(|what| self.error(statement[0], what))?;
                    if matches!(inst.op, Op::Branch(_)) {
                        open.push((code.len(), statement[statement.len() - 1]));
                    }
                    code.push(inst);
                }
            }
        }
        for (at, label) in open {
            let target =
                *labels.get(label.text).ok_or_else(|| self.error(label, "no such label"))?;
            code[at].op = Op::Branch(target);
        }
        Ok((code, top))
    }

    /// What the body declares in shared memory, found ahead: code may come before it. And how the dynamic memory that it uses is
    /// aligned.
    fn shared_of_body(&mut self) -> Result<(Vec<Variable<'a>>, usize), Error> {
        let (start, mut depth) = (self.next, 1);
        let (mut found, mut most) = (Vec::new(), 1);
        while depth > 0 {
            match self.word()? {
                "{" => depth += 1,
                "}" => depth -= 1,
                ".shared" => found.push(self.variable()?),
                word => {
                    let dynamic = self.dynamic.iter().find(|(name, _)| *name == word);
                    most = most.max(dynamic.map_or(1, |(_, align)| *align));
                }
            }
        }
        self.next = start;
        Ok((found, most))
    }

    /// `.reg .b32 %r<706>;` or `.reg .pred p, q;`, behind its first word.
    fn registers(&mut self, names: &mut Names<'a>) -> Result<(), Error> {
        let ty = self.ty()?;
        loop {
            let name = self.word()?;
            if self.eat("<") {
                let count: usize = self.number()?;
                self.expect(">")?;
                (0..count).for_each(|i| names.declare(format!("{name}{i}"), ty));
            } else {
                names.declare(name.to_owned(), ty);
            }
            if !self.eat(",") {
                return self.expect(";");
            }
        }
    }

    /// All up to the next semicolon.
    fn statement(&mut self) -> Result<Vec<Token<'a>>, Error> {
        let mut statement = Vec::new();
        loop {
            let token = self.token()?;
            if token.text == ";" {
                return Ok(statement);
            }
            statement.push(token);
        }
    }
}
