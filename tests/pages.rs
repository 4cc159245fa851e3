//! Links between the pages for people: here, and where a package puts them.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("node lies in the workspace").to_owned()
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Files that `pattern` names, with at most one `*`, in the last place.
fn files(pattern: &Path) -> Vec<PathBuf> {
    let name = pattern.file_name().expect("a name").to_string_lossy().into_owned();
    let Some((before, after)) = name.split_once('*') else { return vec![pattern.to_owned()] };
    let folder = pattern.parent().expect("a folder");
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let fits = |path: &PathBuf| {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        name.len() >= before.len() + after.len() && name.starts_with(before) && name.ends_with(after)
    };
    entries.map(|e| e.expect("an entry").path()).filter(fits).collect()
}

/// What the Debian package installs of files that lie in the repository, by where it puts them.
fn packaged() -> BTreeMap<PathBuf, PathBuf> {
    let manifest: toml::Table = text(&root().join("node/Cargo.toml")).parse().expect("TOML");
    let assets = manifest["package"]["metadata"]["deb"]["assets"].as_array().expect("a list");
    let mut all = BTreeMap::new();
    for asset in assets {
        let part = |i: usize| asset[i].as_str().expect("three texts");
        // What is built for the package alone is not here.
        if part(0).contains("target/") {
            continue;
        }
        for file in files(&plain(&root().join("node").join(part(0)))) {
            let name = file.file_name().expect("a name");
            let there = if part(1).ends_with('/') { Path::new(part(1)).join(name) } else { part(1).into() };
            all.insert(there, file);
        }
    }
    all
}

/// Without `..`.
fn plain(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut all, part| {
        if part == Component::ParentDir {
            all.pop();
        } else {
            all.push(part);
        }
        all
    })
}

/// Where the links of a page lead, as (path, heading), either empty; not those to elsewhere.
fn links(page: &str) -> Vec<(&str, &str)> {
    let found = page.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let own = found.filter(|to| !to.contains("://") && !to.contains(char::is_whitespace));
    own.map(|to| to.split_once('#').unwrap_or((to, ""))).collect()
}

/// A heading's name in a link, as GitHub makes it.
fn name(heading: &str) -> String {
    let kept = heading.trim().to_lowercase().replace(' ', "-");
    kept.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
}

/// Links of the pages (where each is, and where its text lies) that lead nowhere.
fn broken(pages: &BTreeMap<PathBuf, PathBuf>) -> Vec<String> {
    let mut bad = Vec::new();
    let of_text = pages.iter().filter(|(at, _)| at.extension().is_some_and(|e| e == "md"));
    for (at, source) in of_text {
        for (path, heading) in links(&text(source)) {
            let to = if path.is_empty() { at.clone() } else { plain(&at.parent().expect("a folder").join(path)) };
            let there = pages.get(&to);
            let has = |source: &PathBuf| {
                heading.is_empty()
                    || text(source).lines().any(|l| l.starts_with('#') && name(l.trim_start_matches('#')) == heading)
            };
            if !there.is_some_and(has) {
                bad.push(format!("{}: {path}#{heading}", at.display()));
            }
        }
    }
    bad
}

#[test]
fn every_link_of_a_page_leads_somewhere_here_and_in_the_package() {
    let here = ["*.md", "docs/*.md", "packaging/*.md", "docs/*.json", "config/*.toml"];
    let here = here.iter().flat_map(|pattern| files(&root().join(pattern))).map(|file| (file.clone(), file)).collect();
    assert_eq!(broken(&here), [""; 0]);
    let package = packaged();
    assert!(package.len() > 20 && package.contains_key(Path::new("usr/share/doc/citybrain/docs/duty.md")));
    assert_eq!(broken(&package), [""; 0]);
}

#[test]
fn no_page_keeps_the_marks_of_a_merge() {
    let mut pages: Vec<PathBuf> = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"].map(|p| root().join(p)).into();
    let docs = std::fs::read_dir(root().join("docs")).expect("there are pages");
    pages
        .extend(docs.map(|entry| entry.expect("an entry").path()).filter(|p| p.extension().is_some_and(|e| e == "md")));
    for page in pages {
        let mark = text(&page).lines().position(|l| l.starts_with("<<<<<<< ") || l.starts_with(">>>>>>> "));
        assert_eq!(mark, None, "{}", page.display());
    }
}
