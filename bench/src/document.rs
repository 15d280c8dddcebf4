//! The page that the figures go to: between two marks they are replaced, all else stays.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

/// Puts a section between `<!-- NAME -->` and `<!-- end of NAME -->`, and the plots into `images` beside the page.
pub fn write(page: &Path, name: &str, section: &str, plots: &[(&str, String)]) -> Result<()> {
    let images = page.parent().unwrap_or(Path::new(".")).join("images");
    fs::create_dir_all(&images)?;
    for (file, svg) in plots {
        fs::write(images.join(file), svg)?;
    }
    let before = fs::read_to_string(page).with_context(|| format!("cannot read {}", page.display()))?;
    let after = replace(&before, name, section);
    let after = after.with_context(|| format!("{} has no marks for {name}", page.display()))?;
    fs::write(page, after).with_context(|| format!("cannot write {}", page.display()))
}

fn replace(page: &str, name: &str, section: &str) -> Option<String> {
    let (start, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
    let (head, rest) = page.split_once(&start)?;
    let (_, tail) = rest.split_once(&end)?;
    Some(format!("{head}{start}{section}{end}{tail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_replaced_and_all_else_stays() {
        let page = "a\n<!-- x -->\nold\n<!-- end of x -->\nb\n<!-- y -->\n<!-- end of y -->\n";
        let new = replace(page, "x", "new\n").unwrap();
        assert_eq!(new, page.replace("old", "new"));
        assert_eq!(replace(page, "z", "new"), None);
    }
}
