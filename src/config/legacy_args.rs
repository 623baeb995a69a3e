//! Translates command lines of grand-ambassador: long flags with one dash, as accepted by Go's flag package
//! (<https://pkg.go.dev/flag>), and a whole command line in one word, as in existing Compose files. Pure.

use std::ffi::OsString;

use super::settings::Setting;

/// Flags with a value, besides those of the settings.
const VALUES: [&str; 6] = ["name", "sock", "tlscacert", "tlscert", "tlskey", "config"];

/// Flags whose value is optional and defaults to true.
const SWITCHES: [&str; 3] = ["wait", "tls", "tlsverify"];

/// Translates arguments to two dashes. Accepts all of `argv` or the part after the program's name. Unknown arguments are
/// unchanged.
pub fn translate(args: Vec<OsString>) -> Vec<OsString> {
    let mut words = args.into_iter().flat_map(split_command_line);
    let mut out = Vec::new();
    while let Some(word) = words.next() {
        if word == "--" {
            out.push(word);
            break;
        }
        match word.to_str().map(read) {
            None | Some(Word::Other) => out.push(word),
            Some(Word::Flag(flag)) => out.push(flag.into()),
            Some(Word::FlagBeforeValue(flag)) => out.push(with_value(&flag, words.next())),
        }
    }
    out.extend(words);
    out
}

enum Word {
    Other,
    Flag(String),
    /// A flag whose value is the next argument, even if that starts with a dash.
    FlagBeforeValue(String),
}

fn read(word: &str) -> Word {
    let two_dashes = word.starts_with("--");
    let Some(flag) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
        return Word::Other;
    };
    let (name, value) = match flag.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (flag, None),
    };
    match value {
        None if VALUES.contains(&name) || Setting::find(name).is_some() => {
            Word::FlagBeforeValue(format!("--{name}"))
        }
        Some(value) if SWITCHES.contains(&name) => Word::Flag(format!("--{name}={}", go_bool(value))),
        _ if two_dashes => Word::Other,
        // An unknown long flag: the error of clap names the nearest one.
        _ if is_long(name) => Word::Flag(format!("--{flag}")),
        _ => Word::Other,
    }
}

/// Returns whether the name is that of a long flag. Go does not combine short flags.
fn is_long(name: &str) -> bool {
    name.len() > 1 && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
}

/// Converts the values that `strconv.ParseBool` accepts.
fn go_bool(value: &str) -> &str {
    match value {
        "1" | "t" | "T" | "TRUE" | "True" => "true",
        "0" | "f" | "F" | "FALSE" | "False" => "false",
        other => other,
    }
}

fn with_value(flag: &str, value: Option<OsString>) -> OsString {
    let mut word = OsString::from(flag);
    if let Some(value) = value {
        word.push("=");
        word.push(value);
    }
    word
}

/// Splits an argument that is a whole command line of flags. Returns others unchanged.
fn split_command_line(word: OsString) -> Vec<OsString> {
    let Some(text) = word.to_str() else { return vec![word] };
    let line = unquoted(text.trim());
    if !line.starts_with('-') || !(line.contains(char::is_whitespace) || line.len() < text.len()) {
        return vec![word];
    }
    split(line).into_iter().map(OsString::from).collect()
}

/// Removes the outer quotes that a YAML list or an env file leaves.
fn unquoted(text: &str) -> &str {
    let inner =
        |quote: char| text.strip_prefix(quote)?.strip_suffix(quote).filter(|rest| !rest.contains(quote));
    inner('\'').or_else(|| inner('"')).map_or(text, str::trim)
}

/// Splits at white space outside of quotes.
fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '\'' || c == '"' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(input: &[&str], expected: &[&str]) {
        let words = input.iter().map(OsString::from).collect();
        assert_eq!(translate(words), expected, "{input:?}");
    }

    #[test]
    fn one_dash_is_equivalent_to_two() {
        check(&["-name", "a", "-name=b"], &["--name=a", "--name=b"]);
        check(&["--name", "a", "--name=b"], &["--name=a", "--name=b"]);
        check(&["-sock", "/d.sock", "-log-level", "debug"], &["--sock=/d.sock", "--log-level=debug"]);
        check(&["-wait", "-tls", "-tlsverify"], &["--wait", "--tls", "--tlsverify"]);
        check(
            &["-tls=false", "-tlsverify=1", "-wait=T"],
            &["--tls=false", "--tlsverify=true", "--wait=true"],
        );
        check(&["-help"], &["--help"]);
    }

    #[test]
    fn a_value_may_look_like_a_flag() {
        check(&["-name", "-name", "80=a"], &["--name=-name", "80=a"]);
        check(&["-name"], &["--name"]);
    }

    #[test]
    fn a_mistyped_long_flag_remains_one_word() {
        check(&["-nmae", "a"], &["--nmae", "a"]);
    }

    #[test]
    fn everything_else_is_unchanged() {
        check(
            &["/usr/bin/ambassador", "80=a", "-h", "-V", "--workers=2", "-", "check"],
            &["/usr/bin/ambassador", "80=a", "-h", "-V", "--workers=2", "-", "check"],
        );
        check(&["--", "-name", "a"], &["--", "-name", "a"]);
        check(&["redis.example.com", "6379"], &["redis.example.com", "6379"]);
    }

    #[test]
    fn a_command_line_in_one_word_is_split() {
        check(&["-name a -name b"], &["--name=a", "--name=b"]);
        check(&["ambassador", "-name  a\t-name=b "], &["ambassador", "--name=a", "--name=b"]);
        check(&["'-name a -name b'"], &["--name=a", "--name=b"]);
        check(&["\"-name a\""], &["--name=a"]);
        check(&["-name 'a' -sock \"/x y\""], &["--name=a", "--sock=/x y"]);
        check(&["-name 'a"], &["--name=a"]);
    }

    #[test]
    fn a_route_with_white_space_is_unchanged() {
        check(&["80=a b"], &["80=a b"]);
    }

    proptest! {
        #[test]
        fn no_arguments_cause_a_panic(words in proptest::collection::vec("[-'\"=a-z ]{0,12}", 0..6)) {
            let _ = translate(words.into_iter().map(OsString::from).collect());
        }
    }
}
