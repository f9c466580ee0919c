//! Puts all mutants of a file into the file. Each place that has mutants becomes a choice:
//!
//! ```text
//! a < b                →   (match crate::mutant::on() { 7 => (a) == (b), 8 => (a) > (b), _ => a < b })
//! fn f() -> u8 { … }   →   fn f() -> u8 { if crate::mutant::on() == 9 { return 0; } … }
//! ```
//!
//! Each alternative contains the original source of its operands, without their mutants. So the text grows with the
//! depth of nesting and not with the product of the mutants.

use crate::list::{Genre, Mutant};
use std::collections::BTreeMap;
use std::ops::Range;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Arm, BinOp, Expr, ExprBinary, ExprStruct, ExprUnary, ImplItemFn, ItemFn, UnOp};

const ON: &str = "crate::mutant::on()";

/// A file with its mutants in it.
pub struct Woven {
    pub text: String,
    /// Which bytes of the new text belong to which mutant.
    pub places: Vec<(Range<usize>, usize)>,
}

/// Weaves `mutants` (those of this file) into `source`.
pub fn weave(source: &str, mutants: &[&Mutant]) -> syn::Result<Woven> {
    let file = syn::parse_file(source)?;
    let mut by_place: BTreeMap<(usize, usize), Vec<&Mutant>> = BTreeMap::new();
    for mutant in mutants {
        by_place.entry((mutant.span.start.line, mutant.span.start.column)).or_default().push(mutant);
    }
    let mut weaver = Weaver { source, by_place, edits: Vec::new() };
    weaver.visit_file(&file);
    Ok(apply(source, weaver.edits))
}

/// Text to put before and after a range of the source.
struct Edit {
    start: usize,
    end: usize,
    /// The text before the range, in pieces, each with the number of its mutant.
    open: Vec<(String, usize)>,
    close: String,
}

struct Weaver<'a> {
    source: &'a str,
    by_place: BTreeMap<(usize, usize), Vec<&'a Mutant>>,
    edits: Vec<Edit>,
}

impl<'a> Weaver<'a> {
    /// Takes the mutants of one genre that begin where `span` begins.
    fn take(&mut self, span: proc_macro2::Span, genre: Genre) -> Vec<&'a Mutant> {
        let start = span.start();
        let Some(here) = self.by_place.get_mut(&(start.line, start.column + 1)) else { return Vec::new() };
        let (taken, left) = here.iter().partition(|mutant| mutant.genre == genre);
        *here = left;
        taken
    }

    fn text(&self, span: proc_macro2::Span) -> &'a str {
        &self.source[span.byte_range()]
    }

    fn wrap(&mut self, span: proc_macro2::Span, open: Vec<(String, usize)>, close: &str) {
        let range = span.byte_range();
        self.edits.push(Edit { start: range.start, end: range.end, open, close: close.to_owned() });
    }

    /// Turns an expression into a choice with one alternative for each mutant.
    fn choose(&mut self, span: proc_macro2::Span, mutants: &[&Mutant], alternative: impl Fn(&Mutant) -> String) {
        let (Some(first), Some(last)) = (mutants.first(), mutants.last()) else { return };
        let mut open = vec![(format!("(match {ON} {{ "), first.id)];
        open.extend(
            mutants.iter().map(|mutant| (format!("{} => {{ {} }} ", mutant.id, alternative(mutant)), mutant.id)),
        );
        open.push(("_ => ".into(), last.id));
        self.wrap(span, open, " })");
    }

    fn body(&mut self, block: &syn::Block) {
        let Some(first) = block.stmts.first() else { return };
        for mutant in self.take(first.span(), Genre::FnValue) {
            let at = first.span().byte_range().start;
            let open = format!("if {ON} == {} {{ return {}; }} ", mutant.id, mutant.replacement);
            self.edits.push(Edit { start: at, end: usize::MAX, open: vec![(open, mutant.id)], close: String::new() });
        }
    }
}

impl<'a> Visit<'a> for Weaver<'_> {
    fn visit_item_fn(&mut self, item: &'a ItemFn) {
        if item.sig.constness.is_none() {
            self.body(&item.block);
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'a ImplItemFn) {
        if item.sig.constness.is_none() {
            self.body(&item.block);
            visit::visit_impl_item_fn(self, item);
        }
    }

    // Code that is evaluated at compile time cannot choose at run time.
    fn visit_item_const(&mut self, _: &'a syn::ItemConst) {}
    fn visit_impl_item_const(&mut self, _: &'a syn::ImplItemConst) {}
    fn visit_item_static(&mut self, _: &'a syn::ItemStatic) {}
    fn visit_pat(&mut self, _: &'a syn::Pat) {}
    fn visit_type(&mut self, _: &'a syn::Type) {}

    fn visit_expr_binary(&mut self, binary: &'a ExprBinary) {
        let mutants = self.take(binary.op.span(), Genre::BinaryOperator);
        let is_chain = matches!(binary.op, BinOp::And(_)) && (has_let(&binary.left) || has_let(&binary.right));
        if !is_chain {
            let (left, right) = (self.text(binary.left.span()), self.text(binary.right.span()));
            self.choose(binary.span(), &mutants, |mutant| format!("({left}) {} ({right})", mutant.replacement));
        }
        visit::visit_expr_binary(self, binary);
    }

    fn visit_expr_unary(&mut self, unary: &'a ExprUnary) {
        if let UnOp::Not(_) | UnOp::Neg(_) = unary.op {
            let mutants = self.take(unary.op.span(), Genre::UnaryOperator);
            let operand = self.text(unary.expr.span());
            self.choose(unary.span(), &mutants, |_| operand.to_owned());
        }
        visit::visit_expr_unary(self, unary);
    }

    fn visit_arm(&mut self, arm: &'a Arm) {
        let deleted = self.take(arm.pat.span(), Genre::MatchArm);
        let ids: Vec<String> = deleted.iter().map(|mutant| format!("{ON} != {}", mutant.id)).collect();
        match &arm.guard {
            Some((_, guard)) if has_let(guard) => {}
            Some((_, guard)) => {
                let mutants = self.take(guard.span(), Genre::MatchArmGuard);
                self.choose(guard.span(), &mutants, |mutant| mutant.replacement.clone());
                if let Some(first) = deleted.first() {
                    self.wrap(guard.span(), vec![("(".into(), first.id)], &format!(") && {}", ids.join(" && ")));
                }
            }
            None => {
                if let Some(first) = deleted.first() {
                    self.wrap(arm.pat.span(), vec![(String::new(), first.id)], &format!(" if {}", ids.join(" && ")));
                }
            }
        }
        visit::visit_arm(self, arm);
    }

    fn visit_expr_struct(&mut self, made: &'a ExprStruct) {
        for field in &made.fields {
            let mutants = self.take(field.span(), Genre::StructField);
            let (Some(mutant), Some(rest)) = (mutants.first(), &made.rest) else { continue };
            let name = self.text(field.member.span());
            let rest = match &**rest {
                // `..Default::default()`, or the same under the name of the type.
                Expr::Call(_) => format!("<{}>::default().{name}", self.text(made.path.span())),
                rest => format!("({}).{name}", self.text(rest.span())),
            };
            let named = if field.colon_token.is_some() { "" } else { &format!("{name}: ") };
            let open = format!("{named}(match {ON} {{ {} => {rest}, _ => ", mutant.id);
            self.wrap(field.expr.span(), vec![(open, mutant.id)], " })");
        }
        visit::visit_expr_struct(self, made);
    }
}

fn has_let(expr: &Expr) -> bool {
    match expr {
        Expr::Let(_) => true,
        Expr::Binary(binary) => has_let(&binary.left) || has_let(&binary.right),
        _ => false,
    }
}

/// Applies the edits; of nested ones, the outer encloses the inner.
fn apply(source: &str, edits: Vec<Edit>) -> Woven {
    // At one position, closing texts come before opening ones. Of several closing texts the innermost comes first, of
    // several opening ones the outermost.
    let mut order: Vec<((usize, bool, usize, usize), &Edit)> = Vec::new();
    for (number, edit) in edits.iter().enumerate() {
        let len = edit.end - edit.start;
        order.push(((edit.start, true, usize::MAX - len, number), edit));
        if edit.end != usize::MAX {
            order.push(((edit.end, false, len, usize::MAX - number), edit));
        }
    }
    order.sort_by_key(|(key, _)| *key);
    let mut woven = Woven { text: String::new(), places: Vec::new() };
    let mut at = 0;
    for ((place, opens, ..), edit) in order {
        woven.text.push_str(&source[at..place]);
        at = place;
        let from = woven.text.len();
        if opens {
            for (piece, mutant) in &edit.open {
                let from = woven.text.len();
                woven.text.push_str(piece);
                woven.places.push((from..woven.text.len(), *mutant));
            }
        } else {
            woven.text.push_str(&edit.close);
            let last = edit.open.last().expect("an edit has a piece").1;
            woven.places.push((from..woven.text.len(), last));
        }
    }
    woven.text.push_str(&source[at..]);
    woven
}
