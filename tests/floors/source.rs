//! The code of `src`, parsed.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use syn::visit::{self, Visit};

/// A file of `src`.
pub(crate) struct Source {
    /// The top-level module that it belongs to.
    pub(crate) module: String,
    /// From the project's root.
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    /// Without its tests.
    pub(crate) code: syn::File,
}

// `syn` marks its trees as the compiler does, by a cell that no thread may share; each test that needs
// them parses them anew.
pub(crate) fn sources() -> Vec<Source> {
    PATHS.iter().map(|(module, path)| Source::read(module.clone(), path.clone())).collect()
}

static PATHS: LazyLock<Vec<(String, PathBuf)>> = LazyLock::new(|| {
    let mut found = Vec::new();
    find(Path::new("src"), None, &mut found);
    found.sort();
    found
});

fn find(directory: &Path, module: Option<&str>, found: &mut Vec<(String, PathBuf)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let module = module.unwrap_or(&stem);
        if path.is_dir() {
            find(&path, Some(module), found);
        } else if path.extension().is_some_and(|it| it == "rs") {
            found.push((module.to_owned(), path));
        }
    }
}

impl Source {
    fn read(module: String, path: PathBuf) -> Self {
        let text = fs::read_to_string(&path).unwrap();
        let mut code = syn::parse_file(&text).unwrap();
        code.items.retain(|item| !is_test(item));
        Self { module, path, text, code }
    }

    /// As messages have it.
    pub(crate) fn name(&self) -> String {
        self.path.display().to_string()
    }
}

fn is_test(item: &syn::Item) -> bool {
    let syn::Item::Mod(module) = item else { return false };
    module.attrs.iter().any(|it| {
        it.path().is_ident("cfg")
            && it.parse_args::<syn::Path>().is_ok_and(|it| it.is_ident("test"))
    })
}

/// The first parts of all paths that begin with `crate`, in imports and elsewhere.
pub(crate) fn crate_paths(code: &syn::File) -> Vec<String> {
    #[derive(Default)]
    struct Paths(Vec<String>);
    impl Visit<'_> for Paths {
        fn visit_path(&mut self, path: &syn::Path) {
            let mut parts = path.segments.iter();
            if let (Some(first), Some(second)) = (parts.next(), parts.next())
                && first.ident == "crate"
            {
                self.0.push(second.ident.to_string());
            }
            visit::visit_path(self, path);
        }

        fn visit_item_use(&mut self, item: &syn::ItemUse) {
            if let syn::UseTree::Path(path) = &item.tree
                && path.ident == "crate"
            {
                heads(&path.tree, &mut self.0);
            }
        }
    }
    let mut paths = Paths::default();
    paths.visit_file(code);
    paths.0
}

fn heads(tree: &syn::UseTree, found: &mut Vec<String>) {
    match tree {
        syn::UseTree::Path(path) => found.push(path.ident.to_string()),
        syn::UseTree::Name(name) => found.push(name.ident.to_string()),
        syn::UseTree::Rename(rename) => found.push(rename.ident.to_string()),
        syn::UseTree::Group(group) => group.items.iter().for_each(|tree| heads(tree, found)),
        syn::UseTree::Glob(_) => {}
    }
}
