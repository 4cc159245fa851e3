//! What a condition in CEL may cost whoever runs it for others, judged by its text alone. Rules of the
//! node's own file are not: whoever writes them owns the node.
//!
//! An event has 256 KiB at most, and some ten megabytes as values. What is only looked at costs no memory;
//! a copy is made where values are put together. So the copies that may be there at once are counted:
//! those of [`COPIES_MAX`] places, or of two loops' parts multiplied, are 40 MB. How long it takes is
//! bounded by who runs it ([`Expression::truth_while`](super::expression::Expression::truth_while)): each
//! look at the event is a chance to end, and between two of them lies a walk over the event at most.

use cel::common::ast::{ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue};

/// Places in an expression that may make a copy of what the event holds.
const COPIES_MAX: usize = 4;
/// Of a pattern, as a program: some 2,000 states, each of which a long text may pass at every letter.
const PATTERN_BYTES_MAX: usize = 64 * 1024;

/// Why it may not be run for others: what it does, and what to write instead.
pub type TooDear = (String, &'static str);

/// # Errors
/// It could take more of a node's memory or time than a question may.
pub fn judge(expression: &IdedExpr) -> Result<(), TooDear> {
    let mut judge = Judge { copies: 0 };
    judge.walk(expression, At::default())?;
    if judge.copies > COPIES_MAX {
        let does = format!("it puts together {} values of an event, and {COPIES_MAX} are the most", judge.copies);
        return Err((does, "compare them one by one, with `&&` and `||`"));
    }
    Ok(())
}

/// Where a part stands.
#[derive(Clone, Copy, Default)]
struct At {
    /// Its value is kept beside others: in a list, a map, a sum.
    is_kept: bool,
    in_loop: bool,
}

struct Judge {
    copies: usize,
}

impl Judge {
    fn walk(&mut self, e: &IdedExpr, at: At) -> Result<(), TooDear> {
        match &e.expr {
            // The names that macros make are of no value that an event has.
            Expr::Ident(name) => {
                self.copies += usize::from(at.is_kept && !name.starts_with('@'));
                Ok(())
            }
            Expr::Select(s) => self.walk(&s.operand, At { is_kept: at.is_kept && !s.test, ..at }),
            Expr::Call(c) => {
                let parts: Vec<&IdedExpr> = c.target.as_deref().into_iter().chain(&c.args).collect();
                match (c.func_name.as_str(), parts.as_slice()) {
                    ("_?_:_", [asked, yes, no]) => {
                        self.walk(asked, At { is_kept: false, ..at })?;
                        self.walk(yes, at)?;
                        self.walk(no, at)
                    }
                    ("_[_]" | "_[?_]" | "_?._", [of, which]) => {
                        self.walk(of, at)?;
                        self.walk(which, At { is_kept: false, ..at })
                    }
                    ("matches", [text, pattern]) => {
                        matches(pattern, at)?;
                        self.walk(text, At { is_kept: false, ..at })
                    }
                    // With a number in it, it is a number.
                    ("_+_", parts) if !parts.iter().any(|p| is_number(p)) => {
                        parts.iter().try_for_each(|part| self.walk(part, At { is_kept: true, ..at }))
                    }
                    (name, parts) => {
                        let is_kept = parts.len() > 2 || (at.is_kept && !gives_little(name));
                        parts.iter().try_for_each(|part| self.walk(part, At { is_kept, ..at }))
                    }
                }
            }
            Expr::List(l) => l.elements.iter().try_for_each(|e| self.walk(e, At { is_kept: true, ..at })),
            Expr::Map(m) => m.entries.iter().try_for_each(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => {
                    self.walk(&entry.key, At { is_kept: true, ..at })?;
                    self.walk(&entry.value, At { is_kept: true, ..at })
                }
                _ => Ok(()),
            }),
            Expr::Comprehension(c) => self.walk_loop(c, at),
            Expr::Literal(_) | Expr::Struct(_) | Expr::Unspecified => Ok(()),
        }
    }

    fn walk_loop(&mut self, c: &ComprehensionExpr, at: At) -> Result<(), TooDear> {
        // Where it goes over what a loop made, the two run one behind the other.
        self.walk(&c.iter_range, at)?;
        if at.in_loop {
            return Err(("a loop inside of a loop".into(), "one `exists`, `all` or `filter` at a time"));
        }
        let inside = At { is_kept: false, in_loop: true };
        if matches!(c.accu_init.expr, Expr::List(_)) {
            return match filtered(c) {
                Some(asked) => self.walk(asked, inside),
                None => Err(("`map` makes a list of its own".into(), "ask of each with `exists`, `all` or `filter`")),
            };
        }
        for part in [&c.accu_init, &c.loop_cond, &c.loop_step] {
            self.walk(part, inside)?;
        }
        self.walk(&c.result, At { in_loop: true, ..at })
    }
}

/// The condition of a `filter`: its step is `asked ? list + [it] : list`, and so the list has nothing that
/// the other had not.
fn filtered(c: &ComprehensionExpr) -> Option<&IdedExpr> {
    let Expr::Call(step) = &c.loop_step.expr else { return None };
    let [asked, more, _] = step.args.as_slice() else { return None };
    let Expr::Call(more) = &more.expr else { return None };
    let [_, added] = more.args.as_slice() else { return None };
    let Expr::List(added) = &added.expr else { return None };
    let [added] = added.elements.as_slice() else { return None };
    matches!(&added.expr, Expr::Ident(name) if *name == c.iter_var).then_some(asked)
}

/// A pattern is compiled at each evaluation, and one that somebody sends in an event may be any.
fn matches(pattern: &IdedExpr, at: At) -> Result<(), TooDear> {
    let instead = "`contains`, `startsWith` and `endsWith` take whatever there is";
    if at.in_loop {
        return Err(("`matches` inside of a loop".into(), instead));
    }
    let Expr::Literal(LiteralValue::String(pattern)) = &pattern.expr else {
        return Err(("`matches` with a pattern that the condition does not say itself".into(), instead));
    };
    match regex::RegexBuilder::new(pattern.inner()).size_limit(PATTERN_BYTES_MAX).build() {
        Ok(_) => Ok(()),
        Err(regex::Error::CompiledTooBig(_)) => {
            Err((format!("the pattern `{}` is too large", pattern.inner()), instead))
        }
        Err(_) => Err((format!("`{}` is no regular expression", pattern.inner()), "such as `^lamp-[0-9]+$`")),
    }
}

fn is_number(e: &IdedExpr) -> bool {
    match &e.expr {
        Expr::Literal(l) => matches!(l, LiteralValue::Int(_) | LiteralValue::UInt(_) | LiteralValue::Double(_)),
        Expr::Call(c) => ["int", "uint", "double", "size"].contains(&c.func_name.as_str()),
        _ => false,
    }
}

/// Numbers, and true or false: whatever goes in.
fn gives_little(name: &str) -> bool {
    [
        "_==_",
        "_!=_",
        "_<_",
        "_<=_",
        "_>_",
        "_>=_",
        "_&&_",
        "_||_",
        "!_",
        "-_",
        "_-_",
        "_*_",
        "_/_",
        "_%_",
        "@in",
        "_in_",
        "in",
        "contains",
        "startsWith",
        "endsWith",
        "size",
        "int",
        "uint",
        "double",
        "bool",
        "hasValue",
    ]
    .contains(&name)
}
