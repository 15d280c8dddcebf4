//! A Dockerfile's instructions, each on the line that it begins on.

/// All that there are. `MAINTAINER` is one of the past.
const KNOWN: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// One instruction.
#[derive(Debug)]
pub(super) struct Instruction {
    pub(super) line: usize,
    /// In capitals.
    pub(super) name: String,
    /// Its options, such as `--from=build`.
    pub(super) flags: Vec<String>,
    /// The rest on one line; here-documents below it.
    pub(super) rest: String,
}

impl Instruction {
    /// The list of the form `["a", "b"]`; `None`: it is in the shell's form.
    pub(super) fn list(&self) -> Option<Vec<String>> {
        serde_json::from_str(self.rest.trim()).ok()
    }
}

/// Reads all of them.
pub(super) fn read(text: &str) -> Result<Vec<Instruction>, String> {
    let is_directive = |line: &&str| line.trim_start().starts_with('#');
    let escape = text.lines().take_while(is_directive).find_map(|line| {
        let (name, value) = line.trim_start().strip_prefix('#')?.split_once('=')?;
        (name.trim().eq_ignore_ascii_case("escape") && value.trim() == "`").then_some('`')
    });
    let escape = escape.unwrap_or('\\');
    let mut instructions = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((at, first)) = lines.next() {
        if is_nothing(first) {
            continue;
        }
        let mut whole = first.trim().to_owned();
        while let Some(begun) = whole.trim_end().strip_suffix(escape).map(str::to_owned) {
            whole = begun;
            match lines.find(|(_, line)| !is_nothing(line)) {
                Some((_, line)) => whole.push_str(line),
                None => break,
            }
        }
        let (name, rest) = whole.split_once(char::is_whitespace).unwrap_or((&whole, ""));
        let name = name.to_ascii_uppercase();
        if !KNOWN.contains(&name.as_str()) {
            return Err(format!("line {} begins with no instruction", at + 1));
        }
        let mut rest = rest.trim();
        let mut flags = Vec::new();
        while rest.starts_with("--") {
            let (flag, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            flags.push(flag.to_owned());
            rest = after.trim_start();
        }
        let mut rest = rest.to_owned();
        if rest.is_empty() {
            return Err(format!("{name} at line {} says nothing", at + 1));
        }
        if matches!(name.as_str(), "RUN" | "COPY" | "ADD") {
            for end in here_documents(&rest) {
                for (_, line) in lines.by_ref().take_while(|(_, line)| line.trim_start_matches('\t') != end) {
                    rest.push('\n');
                    rest.push_str(line);
                }
            }
        }
        instructions.push(Instruction { line: at + 1, name, flags, rest });
    }
    match instructions.iter().find(|instruction| instruction.name != "ARG") {
        Some(first) if first.name == "FROM" => Ok(instructions),
        Some(first) => Err(format!("{} at line {} stands before FROM", first.name, first.line)),
        None => Err("it has no FROM".to_owned()),
    }
}

/// Empty, or a comment: neither ends an instruction.
fn is_nothing(line: &str) -> bool {
    let line = line.trim_start();
    line.is_empty() || line.starts_with('#')
}

/// The words that end them: `<<END`, `<<-"END"`.
fn here_documents(rest: &str) -> Vec<String> {
    let begun = rest.split_whitespace().filter_map(|word| word.strip_prefix("<<"));
    let ends = begun.map(|end| end.trim_start_matches('-').trim_matches(['"', '\'']).to_owned());
    ends.filter(|end| end.starts_with(|c: char| c == '_' || c.is_ascii_alphabetic())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_told_apart() {
        let text = "# syntax=docker/dockerfile:1\n\nFROM  a AS b\nrun --mount=type=cache,target=/x \\\n  # said between\n\n  \
                    one && \\\n  two\nRUN <<END\nUSER nobody\nEND\nCOPY <<-\"A\" <<B /x/\nFROM\n\tA\nB\nCMD [ \"a b\", \"c\" ]\n";
        let all = read(text).unwrap();
        let names: Vec<_> = all.iter().map(|one| (one.line, one.name.as_str())).collect();
        assert_eq!(names, [(3, "FROM"), (4, "RUN"), (9, "RUN"), (12, "COPY"), (16, "CMD")]);
        assert_eq!(all[1].flags, ["--mount=type=cache,target=/x"]);
        assert_eq!(all[1].rest.split_whitespace().collect::<Vec<_>>(), ["one", "&&", "two"]);
        assert_eq!(all[2].rest, "<<END\nUSER nobody");
        assert_eq!(all[4].list().unwrap(), ["a b", "c"]);
        assert!(all[0].list().is_none());
        let windows = read("# escape=`\nFROM a\nENV DIR=c:\\\nENV A=1 `\n B=2\n").unwrap();
        assert_eq!((windows.len(), windows[1].rest.as_str()), (3, "DIR=c:\\"));
    }

    #[test]
    fn what_is_no_dockerfile_is_an_error_that_tells_where() {
        for (text, reason) in [
            ("", "no FROM"),
            ("ARG A=1\n", "no FROM"),
            ("FROM", "says nothing"),
            ("\nGO build\n", "line 2"),
            ("ENV A=1\nFROM a\n", "ENV at line 1"),
            ("FROM a\nRUN x \\", ""),
        ] {
            match read(text) {
                Err(error) => assert!(error.contains(reason), "{text}: {error}"),
                Ok(_) => assert!(reason.is_empty(), "{text}"),
            }
        }
    }
}
