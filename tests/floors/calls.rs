//! Which files of one class call each other. Imports cannot show it: an `impl` may stand in any file of
//! its module, and `self` reaches them all.

use std::collections::{BTreeMap, BTreeSet};

use syn::visit::{self, Visit};

use crate::source::sources;

/// How many files of a class may stand in one circle of calls. Only to be made smaller.
const MOST: [(&str, usize); 1] = [("Engine", 21)];
/// Of all other classes.
const ELSEWHERE: usize = 4;

/// The methods of a class that a file has, and those that it calls on `self`.
#[derive(Default)]
struct Part {
    has: BTreeSet<String>,
    calls: BTreeSet<String>,
}

struct Impls<'a> {
    file: &'a str,
    parts: &'a mut BTreeMap<String, BTreeMap<String, Part>>,
    class: Option<String>,
}

impl Impls<'_> {
    fn part(&mut self) -> Option<&mut Part> {
        let class = self.class.clone()?;
        Some(self.parts.entry(class).or_default().entry(self.file.to_owned()).or_default())
    }
}

impl Visit<'_> for Impls<'_> {
    fn visit_item_impl(&mut self, item: &syn::ItemImpl) {
        let before = self.class.take();
        if item.trait_.is_none()
            && let syn::Type::Path(path) = &*item.self_ty
        {
            self.class = path.path.segments.last().map(|it| it.ident.to_string());
        }
        visit::visit_item_impl(self, item);
        self.class = before;
    }

    fn visit_impl_item_fn(&mut self, item: &syn::ImplItemFn) {
        let name = item.sig.ident.to_string();
        if let Some(part) = self.part() {
            part.has.insert(name);
        }
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_expr_method_call(&mut self, call: &syn::ExprMethodCall) {
        let of_self = matches!(&*call.receiver, syn::Expr::Path(it) if it.path.is_ident("self"));
        let name = call.method.to_string();
        if of_self && let Some(part) = self.part() {
            part.calls.insert(name);
        }
        visit::visit_expr_method_call(self, call);
    }
}

/// The files of each class in the largest circle of calls that it has.
fn circles() -> BTreeMap<String, Vec<String>> {
    let mut parts = BTreeMap::new();
    for source in sources() {
        // Types of one name in two modules are two.
        let mut own = BTreeMap::new();
        let (module, name) = (source.module.clone(), source.name());
        Impls { file: &name, parts: &mut own, class: None }.visit_file(&source.code);
        for (class, files) in own {
            let all: &mut BTreeMap<_, _> = parts.entry((module.clone(), class)).or_default();
            all.extend(files);
        }
    }
    let circles = parts.into_iter().map(|((_, class), files)| (class, largest_circle(&files)));
    let mut found = BTreeMap::new();
    for (class, circle) in circles {
        let known: &mut Vec<String> = found.entry(class).or_default();
        if circle.len() > known.len() {
            *known = circle;
        }
    }
    found
}

/// The largest set of files each of which reaches each other by calls.
fn largest_circle(files: &BTreeMap<String, Part>) -> Vec<String> {
    let calls = |from: &Part, to: &Part| !from.calls.is_disjoint(&to.has);
    let reached = |start: &String| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![start]);
        while let Some(file) = next.pop() {
            for (other, part) in files {
                if other != file && calls(&files[file], part) && seen.insert(other) {
                    next.push(other);
                }
            }
        }
        seen
    };
    let reach: BTreeMap<_, _> = files.keys().map(|file| (file, reached(file))).collect();
    let circle = |file: &String| {
        let both = files
            .keys()
            .filter(|other| reach[file].contains(other) && reach[other].contains(&file));
        both.cloned().collect::<Vec<_>>()
    };
    files.keys().map(circle).max_by_key(Vec::len).unwrap_or_default()
}

#[test]
fn files_of_a_class_call_each_other_in_small_circles() {
    let bounds = BTreeMap::from(MOST);
    for (class, circle) in circles() {
        let most = bounds.get(class.as_str()).copied().unwrap_or(ELSEWHERE);
        assert!(circle.len() <= most, "{class}: {} files in a circle: {circle:?}", circle.len());
        assert!(
            !bounds.contains_key(class.as_str()) || circle.len() == most,
            "{class}: only {}",
            circle.len()
        );
    }
}

#[test]
fn a_circle_over_three_files_is_found() {
    let part = |has: &str, calls: &str| Part {
        has: BTreeSet::from([has.to_owned()]),
        calls: BTreeSet::from([calls.to_owned()]),
    };
    let files = [
        ("a", part("a", "b")),
        ("b", part("b", "c")),
        ("c", part("c", "a")),
        ("d", part("d", "a")),
    ];
    let files = files.into_iter().map(|(name, part)| (name.to_owned(), part)).collect();
    assert_eq!(largest_circle(&files), ["a", "b", "c"]);
}
