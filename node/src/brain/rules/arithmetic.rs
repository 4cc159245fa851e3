//! Numbers of an event are reckoned with alike, whether they come as `20` or as `20.0`: a sensor writes either.
//!
//! CEL itself mixes no whole numbers with others, and divides whole ones to whole ones. Here one of each makes a number
//! with a fraction, and so does a division, but of what is whole by the expression's own words: `7 / 2`,
//! `int(event.data.v) / 3`, `window.count / 2`.

use cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue};
use cel::common::types::{CelDouble, CelInt, CelUInt, DYN_TYPE};
use cel::common::value::CowVal;
use cel::{Env, ExecutionError, Value};

type Outcome<'b, 'v> = Result<CowVal<'b, 'v>, ExecutionError>;

/// CEL's operators, and the functions that stand in their place.
const OPERATORS: [(&str, &str); 5] =
    [("_+_", "@plus"), ("_-_", "@minus"), ("_*_", "@times"), ("_/_", "@divided"), ("_%_", "@rest")];

/// Everything that CEL knows, and the functions that [`replaced`] names.
pub fn env() -> Env {
    let mut env = Env::stdlib();
    let functions: [cel::common::functions::Function; 5] = [plus, minus, times, divided, rest];
    for ((_, name), function) in OPERATORS.into_iter().zip(functions) {
        let added = env.add_overload(name, name, vec![DYN_TYPE, DYN_TYPE], function);
        added.expect("no other function has that name");
    }
    env
}

/// The same with our functions for CEL's operators.
pub fn replaced(e: &IdedExpr) -> IdedExpr {
    let mut e = e.clone();
    replace(&mut e);
    e
}

fn replace(e: &mut IdedExpr) {
    match &mut e.expr {
        Expr::Select(s) => replace(&mut s.operand),
        Expr::Call(c) => {
            let ours = OPERATORS.iter().find(|(name, _)| *name == c.func_name).map(|(_, ours)| *ours);
            let is_left = c.args.iter().all(is_whole) || c.args.iter().any(is_of_macro);
            c.target.as_deref_mut().into_iter().chain(&mut c.args).for_each(replace);
            if let Some(ours) = ours.filter(|_| !is_left) {
                c.func_name = ours.to_owned();
            }
        }
        Expr::List(l) => l.elements.iter_mut().for_each(replace),
        Expr::Map(m) => {
            for entry in &mut m.entries {
                if let EntryExpr::MapEntry(entry) = &mut entry.expr {
                    replace(&mut entry.key);
                    replace(&mut entry.value);
                }
            }
        }
        Expr::Comprehension(c) => {
            let c = &mut **c;
            let parts = [&mut c.iter_range, &mut c.accu_init, &mut c.loop_cond, &mut c.loop_step, &mut c.result];
            parts.into_iter().for_each(replace);
        }
        Expr::Ident(_) | Expr::Literal(_) | Expr::Struct(_) | Expr::Unspecified => {}
    }
}

/// What `map`, `filter` and the like put together themselves.
fn is_of_macro(e: &IdedExpr) -> bool {
    matches!(&e.expr, Expr::Ident(name) if name.starts_with('@')) || matches!(e.expr, Expr::List(_))
}

/// Is it a whole number by its own words, whatever the event is?
fn is_whole(e: &IdedExpr) -> bool {
    match &e.expr {
        Expr::Literal(l) => matches!(l, LiteralValue::Int(_) | LiteralValue::UInt(_)),
        Expr::Select(s) => {
            let whole = [("window", "count"), ("window", "distinct"), ("window", "within_s"), ("event", "at_ms")];
            whole
                .iter()
                .any(|(root, field)| s.field == *field && matches!(&s.operand.expr, Expr::Ident(name) if name == root))
        }
        Expr::Call(c) => match (c.func_name.as_str(), c.args.as_slice()) {
            ("int" | "uint" | "size", _) => true,
            ("_?_:_", [_, yes, no]) => is_whole(yes) && is_whole(no),
            ("-_", [of]) => is_whole(of),
            (name, args) => OPERATORS.iter().any(|(op, _)| *op == name) && args.iter().all(is_whole),
        },
        _ => false,
    }
}

fn plus<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Outcome<'b, 'v> {
    let (a, b) = evened("add", args)?;
    let by = a.as_adder().ok_or_else(|| unsupported("add", &a, &b))?;
    Ok(CowVal::Owned(by.add(b.as_ref())?.into_owned()))
}

fn minus<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Outcome<'b, 'v> {
    let (a, b) = evened("sub", args)?;
    let by = a.as_subtractor().ok_or_else(|| unsupported("sub", &a, &b))?;
    Ok(CowVal::Owned(by.sub(b.as_ref())?.into_owned()))
}

fn times<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Outcome<'b, 'v> {
    let (a, b) = evened("mul", args)?;
    let by = a.as_multiplier().ok_or_else(|| unsupported("mul", &a, &b))?;
    Ok(CowVal::Owned(by.mul(b.as_ref())?.into_owned()))
}

fn divided<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Outcome<'b, 'v> {
    let (a, b) = two("div", args)?;
    let (over, under) = number(&a).zip(number(&b)).ok_or_else(|| unsupported("div", &a, &b))?;
    if under == 0.0 {
        return Err(ExecutionError::DivisionByZero(over.into()));
    }
    Ok(CowVal::owned(CelDouble::from(over / under)))
}

fn rest<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Outcome<'b, 'v> {
    let (a, b) = two("rem", args)?;
    if let Some(whole) = a.as_modder().filter(|_| !is_fraction(&b)) {
        return Ok(CowVal::Owned(whole.modulo(b.as_ref())?.into_owned()));
    }
    let (of, by) = number(&a).zip(number(&b)).ok_or_else(|| unsupported("rem", &a, &b))?;
    if by == 0.0 {
        return Err(ExecutionError::RemainderByZero(of.into()));
    }
    Ok(CowVal::owned(CelDouble::from(of % by)))
}

fn two<'b, 'v>(
    what: &'static str,
    args: Vec<CowVal<'b, 'v>>,
) -> Result<(CowVal<'b, 'v>, CowVal<'b, 'v>), ExecutionError> {
    let [a, b] = <[_; 2]>::try_from(args).map_err(|_| ExecutionError::function_error(what, "takes two values"))?;
    Ok((a, b))
}

/// Both with a fraction, if one of two numbers has one; whatever else they are, as they are.
fn evened<'b, 'v>(
    what: &'static str,
    args: Vec<CowVal<'b, 'v>>,
) -> Result<(CowVal<'b, 'v>, CowVal<'b, 'v>), ExecutionError> {
    let (a, b) = two(what, args)?;
    Ok(match (number(&a), number(&b)) {
        (Some(x), Some(y)) if is_fraction(&a) != is_fraction(&b) => {
            (CowVal::owned(CelDouble::from(x)), CowVal::owned(CelDouble::from(y)))
        }
        _ => (a, b),
    })
}

fn is_fraction(value: &CowVal<'_, '_>) -> bool {
    value.downcast_ref::<CelDouble>().is_some()
}

#[allow(clippy::cast_precision_loss, reason = "beside a number with a fraction it has no more digits")]
fn number(value: &CowVal<'_, '_>) -> Option<f64> {
    let whole = || value.downcast_ref::<CelInt>().map(|i| *i.inner() as f64);
    let natural = || value.downcast_ref::<CelUInt>().map(|u| *u.inner() as f64);
    value.downcast_ref::<CelDouble>().map(|f| *f.inner()).or_else(whole).or_else(natural)
}

fn unsupported(what: &'static str, a: &CowVal<'_, '_>, b: &CowVal<'_, '_>) -> ExecutionError {
    let shown = |value: &CowVal<'_, '_>| Value::try_from(value.as_ref()).unwrap_or(Value::Null);
    ExecutionError::UnsupportedBinaryOperator(what, shown(a), shown(b))
}
