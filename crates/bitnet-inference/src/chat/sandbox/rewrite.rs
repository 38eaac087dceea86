//! Rewrites a template so that all it makes is paid for.
//!
//! The engine counts instructions and the bytes of strings. Lists and maps are left to us: here each
//! place in a template where one is made becomes a call of one of the functions in `operators.rs`,
//! whose names no template can spell. Constants of more than one part are gone with that, which the
//! engine would compute with before it counts anything.

use minijinja::machinery::Span;
use minijinja::machinery::ast::{
    BinOp, BinOpKind, Call, CallArg, CallBlock, Compare, CompareOp, CompareOpKind, Const, Do,
    EmitExpr, EmitRaw, Expr, Filter, FilterBlock, ForLoop, GetAttr, GetItem, IfCond, IfExpr, Macro,
    Set, SetBlock, Slice, Spanned, Stmt, Template, Test, UnaryOp, UnaryOpKind, Var, WithBlock,
};

use super::operators::{CHARGE, CONCAT, KEEP, LIST, MAP};

/// Something that templates may not do here.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) line: usize,
    pub(super) what: String,
}

impl Refused {
    fn new(span: Span, what: impl Into<String>) -> Refused {
        Refused { line: usize::from(span.start_line), what: what.into() }
    }
}

type Result<T> = std::result::Result<T, Refused>;

/// The same statement, with the calls.
pub(super) fn statement<'s>(statement: &Stmt<'s>) -> Result<Stmt<'s>> {
    Ok(match statement {
        Stmt::Template(s) => spanned(s, Stmt::Template, Template { children: body(&s.children)? }),
        Stmt::EmitExpr(s) => spanned(s, Stmt::EmitExpr, EmitExpr { expr: expression(&s.expr)? }),
        Stmt::EmitRaw(s) => spanned(s, Stmt::EmitRaw, EmitRaw { raw: s.raw }),
        Stmt::ForLoop(s) => {
            let node = ForLoop {
                target: target(&s.target)?,
                iter: charged(&s.iter)?,
                filter_expr: optional(s.filter_expr.as_ref())?,
                recursive: s.recursive,
                body: body(&s.body)?,
                else_body: body(&s.else_body)?,
            };
            spanned(s, Stmt::ForLoop, node)
        }
        Stmt::IfCond(s) => {
            let node = IfCond {
                expr: expression(&s.expr)?,
                true_body: body(&s.true_body)?,
                false_body: body(&s.false_body)?,
            };
            spanned(s, Stmt::IfCond, node)
        }
        Stmt::WithBlock(s) => {
            let assignment =
                |(to, value): &(Expr<'s>, Expr<'s>)| Ok((target(to)?, kept(to, value)?));
            let assignments = s.assignments.iter().map(assignment).collect::<Result<_>>()?;
            spanned(s, Stmt::WithBlock, WithBlock { assignments, body: body(&s.body)? })
        }
        Stmt::Set(s) => {
            let node = Set { target: target(&s.target)?, expr: kept(&s.target, &s.expr)? };
            spanned(s, Stmt::Set, node)
        }
        Stmt::SetBlock(s) => {
            let filter = optional(s.filter.as_ref())?;
            let node = SetBlock { target: target(&s.target)?, filter, body: body(&s.body)? };
            spanned(s, Stmt::SetBlock, node)
        }
        Stmt::FilterBlock(s) => {
            let filter = expression(&s.filter)?;
            let node = FilterBlock { filter, filter_span: s.filter_span, body: body(&s.body)? };
            spanned(s, Stmt::FilterBlock, node)
        }
        Stmt::AutoEscape(s) => return Err(Refused::new(s.span(), "`autoescape` is not supported")),
        Stmt::Macro(s) => spanned(s, Stmt::Macro, declaration(s)?),
        Stmt::CallBlock(s) => {
            let node = CallBlock {
                call: Spanned::new(call(&s.call)?, s.call.span()),
                call_expr_span: s.call_expr_span,
                macro_decl: Spanned::new(declaration(&s.macro_decl)?, s.macro_decl.span()),
            };
            spanned(s, Stmt::CallBlock, node)
        }
        Stmt::Continue(s) => spanned(s, Stmt::Continue, minijinja::machinery::ast::Continue),
        Stmt::Break(s) => spanned(s, Stmt::Break, minijinja::machinery::ast::Break),
        Stmt::Do(s) => {
            let call = Spanned::new(call(&s.call)?, s.call.span());
            spanned(s, Stmt::Do, Do { call })
        }
    })
}

/// A node at the place of another.
fn spanned<A, B, T>(at: &Spanned<A>, kind: impl FnOnce(Spanned<B>) -> T, node: B) -> T {
    kind(Spanned::new(node, at.span()))
}

fn body<'s>(statements: &[Stmt<'s>]) -> Result<Vec<Stmt<'s>>> {
    statements.iter().map(statement).collect()
}

fn expressions<'s>(expressions: &[Expr<'s>]) -> Result<Vec<Expr<'s>>> {
    expressions.iter().map(expression).collect()
}

fn optional<'s>(expression: Option<&Expr<'s>>) -> Result<Option<Expr<'s>>> {
    expression.map(self::expression).transpose()
}

fn declaration<'s>(node: &Macro<'s>) -> Result<Macro<'s>> {
    let args = node.args.iter().map(target).collect::<Result<_>>()?;
    let defaults = expressions(&node.defaults)?;
    Ok(Macro { name: node.name, args, defaults, body: body(&node.body)? })
}

fn call<'s>(node: &Call<'s>) -> Result<Call<'s>> {
    Ok(Call { expr: expression(&node.expr)?, args: arguments(&node.args)? })
}

fn arguments<'s>(arguments: &[CallArg<'s>]) -> Result<Vec<CallArg<'s>>> {
    let argument = |argument: &CallArg<'s>| {
        Ok(match argument {
            CallArg::Pos(value) => CallArg::Pos(expression(value)?),
            CallArg::Kwarg(name, value) => CallArg::Kwarg(name, expression(value)?),
            CallArg::PosSplat(value) => CallArg::PosSplat(expression(value)?),
            CallArg::KwargSplat(value) => CallArg::KwargSplat(expression(value)?),
        })
    };
    arguments.iter().map(argument).collect()
}

/// What is assigned to: a name, an attribute of a namespace, or a list of these.
fn target<'s>(node: &Expr<'s>) -> Result<Expr<'s>> {
    Ok(match node {
        Expr::Var(e) => spanned(e, Expr::Var, Var { id: e.id }),
        Expr::GetAttr(e) => {
            spanned(e, Expr::GetAttr, GetAttr { expr: target(&e.expr)?, name: e.name })
        }
        Expr::List(e) => {
            let items = e.items.iter().map(target).collect::<Result<_>>()?;
            spanned(e, Expr::List, minijinja::machinery::ast::List { items })
        }
        Expr::Tuple(e) => {
            let items = e.items.iter().map(target).collect::<Result<_>>()?;
            spanned(e, Expr::List, minijinja::machinery::ast::List { items })
        }
        other => return Err(Refused::new(other.span(), "this cannot be assigned to")),
    })
}

/// The value of an assignment. What a namespace holds is kept beyond the statement, so that it could
/// grow without end in depth or hold itself.
fn kept<'s>(to: &Expr<'s>, value: &Expr<'s>) -> Result<Expr<'s>> {
    let node = expression(value)?;
    Ok(if matches!(to, Expr::Var(_)) { node } else { function(KEEP, value.span(), [node]) })
}

/// An expression of which the engine looks at each character without counting them.
fn charged<'s>(node: &Expr<'s>) -> Result<Expr<'s>> {
    let is_short = matches!(node, Expr::Const(_));
    let expression = expression(node)?;
    Ok(if is_short { expression } else { function(CHARGE, node.span(), [expression]) })
}

/// A call of one of our functions.
fn function<'s>(
    name: &'static str,
    span: Span,
    args: impl IntoIterator<Item = Expr<'s>>,
) -> Expr<'s> {
    let expr = Expr::Var(Spanned::new(Var { id: name }, span));
    let args = args.into_iter().map(CallArg::Pos).collect();
    Expr::Call(Spanned::new(Call { expr, args }, span))
}

fn expression<'s>(node: &Expr<'s>) -> Result<Expr<'s>> {
    Ok(match node {
        Expr::Var(e) => spanned(e, Expr::Var, Var { id: e.id }),
        Expr::Const(e) => spanned(e, Expr::Const, Const { value: e.value.clone() }),
        Expr::List(e) => function(LIST, e.span(), expressions(&e.items)?),
        Expr::Tuple(e) => function(LIST, e.span(), expressions(&e.items)?),
        Expr::Map(e) => {
            let pairs = e.keys.iter().zip(&e.values).flat_map(|(key, value)| [key, value]);
            function(MAP, e.span(), pairs.map(expression).collect::<Result<Vec<_>>>()?)
        }
        Expr::Slice(e) => {
            let node = Slice {
                expr: charged(&e.expr)?,
                start: optional(e.start.as_ref())?,
                stop: optional(e.stop.as_ref())?,
                step: optional(e.step.as_ref())?,
            };
            function(KEEP, e.span(), [spanned(e, Expr::Slice, node)])
        }
        Expr::UnaryOp(e) => {
            // It cannot be copied.
            let is_not = matches!(e.op, UnaryOpKind::Not);
            let op = if is_not { UnaryOpKind::Not } else { UnaryOpKind::Neg };
            spanned(e, Expr::UnaryOp, UnaryOp { op, expr: expression(&e.expr)? })
        }
        Expr::BinOp(e) => binary(e)?,
        Expr::Compare(e) => compare(e)?,
        Expr::IfExpr(e) => {
            let node = IfExpr {
                test_expr: expression(&e.test_expr)?,
                true_expr: expression(&e.true_expr)?,
                false_expr: optional(e.false_expr.as_ref())?,
            };
            spanned(e, Expr::IfExpr, node)
        }
        Expr::Filter(e) => {
            let expr = optional(e.expr.as_ref())?;
            spanned(e, Expr::Filter, Filter { name: e.name, expr, args: arguments(&e.args)? })
        }
        Expr::Test(e) => {
            let node = Test { name: e.name, expr: charged(&e.expr)?, args: arguments(&e.args)? };
            spanned(e, Expr::Test, node)
        }
        Expr::GetAttr(e) => {
            spanned(e, Expr::GetAttr, GetAttr { expr: expression(&e.expr)?, name: e.name })
        }
        Expr::GetItem(e) => {
            let is_key = matches!(&e.subscript_expr, Expr::Const(c) if c.value.as_str().is_some());
            let expr = if is_key { expression(&e.expr)? } else { charged(&e.expr)? };
            let subscript_expr = expression(&e.subscript_expr)?;
            spanned(e, Expr::GetItem, GetItem { expr, subscript_expr })
        }
        Expr::Call(e) => {
            check_method(e)?;
            spanned(e, Expr::Call, call(e)?)
        }
    })
}

/// Methods of the engine's loops: one would keep what it is given, the other divides by the number of
/// its arguments.
fn check_method(e: &Spanned<Call<'_>>) -> Result<()> {
    let Expr::GetAttr(method) = &e.expr else { return Ok(()) };
    match method.name {
        "changed" => Err(Refused::new(e.span(), "`changed` is not supported")),
        "cycle" if !matches!(e.args[..], [CallArg::Pos(_), ..]) => {
            Err(Refused::new(e.span(), "`cycle` needs values"))
        }
        _ => Ok(()),
    }
}

fn binary<'s>(e: &Spanned<BinOp<'s>>) -> Result<Expr<'s>> {
    let node = || {
        let (left, right) = (expression(&e.left)?, expression(&e.right)?);
        Ok(spanned(e, Expr::BinOp, BinOp { op: e.op, left, right }))
    };
    Ok(match e.op {
        BinOpKind::Concat => {
            function(CONCAT, e.span(), [expression(&e.left)?, expression(&e.right)?])
        }
        BinOpKind::Add | BinOpKind::Mul => function(KEEP, e.span(), [node()?]),
        BinOpKind::Eq
        | BinOpKind::Ne
        | BinOpKind::Lt
        | BinOpKind::Lte
        | BinOpKind::Gt
        | BinOpKind::Gte => {
            let (left, right) = (expression(&e.left)?, charged(&e.right)?);
            spanned(e, Expr::BinOp, BinOp { op: e.op, left, right })
        }
        _ => node()?,
    })
}

/// A chain of comparisons.
fn compare<'s>(e: &Spanned<Compare<'s>>) -> Result<Expr<'s>> {
    let ops = e.ops.iter().map(|op: &CompareOp<'s>| {
        let kind: CompareOpKind = op.op;
        Ok(CompareOp { op: kind, expr: charged(&op.expr)? })
    });
    let ops = ops.collect::<Result<_>>()?;
    let node = Compare { expr: expression(&e.expr)?, ops };
    Ok(spanned(e, Expr::Compare, node))
}
