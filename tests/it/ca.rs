//! `ambassador ca` and `ambassador peer secret` as processes: what they print and write.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

/// The exit code, standard output and standard error of a command in a directory.
fn run(dir: &Path, args: &str) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ambassador"));
    let output = command.current_dir(dir).args(args.split_whitespace()).env_clear().output().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    (output.status.code().unwrap(), out, err)
}

fn done(dir: &Path, args: &str) -> String {
    let (code, out, err) = run(dir, args);
    assert_eq!((code, err.as_str()), (0, ""), "{args}: {out}");
    out
}

#[test]
fn ca_is_created_issues_revokes_lists_and_rotates() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let created = done(dir, "ca init");
    assert!(
        created.starts_with("created a CA in ambassador-ca\n  ambassador-ca/ca.pem   copy it to every host"),
        "{created}"
    );
    assert!(created.ends_with("next: `ambassador ca issue NAME` for each host\n"), "{created}");
    let issued = done(dir, "ca issue host1 --dns host1.example.com --dns 192.0.2.1");
    let serial =
        issued.strip_prefix("issued host1, serial number ").unwrap().split(',').next().unwrap().to_owned();
    assert!(
        serial.len() == 32
            && issued
                .ends_with(": host1.pem\nnext: copy host1.pem to host1 alone, mode 0600, for --peer-cert\n"),
        "{issued}"
    );
    done(dir, "ca issue host2 --days 1 --out two.pem");
    assert!(fs::read_to_string(dir.join("two.pem")).unwrap().contains("PRIVATE KEY"));

    let revoked = done(dir, &format!("ca revoke {serial}"));
    assert_eq!(
        revoked,
        format!(
            "revoked host1, serial number {serial}\nnext: copy ambassador-ca/crl.pem to every host, for --peer-crl\n"
        )
    );
    let listed = done(dir, "ca list");
    let lines: Vec<&str> = listed.lines().collect();
    assert!(
        lines[0].starts_with("NAME") && lines[1].contains("revoked 20") && lines[2].contains("  valid  "),
        "{listed}"
    );
    assert!(lines[3].starts_with("CA `peers ") && lines[3].contains("`, in use, valid until 20"), "{listed}");
    let json: Value = serde_json::from_str(&done(dir, "ca list --json")).unwrap();
    assert_eq!(json["certificates"][0]["serial"], serial);
    assert_eq!(json["certificates"][0]["alternative_names"][1], "192.0.2.1");
    assert_eq!(
        (&json["certificates"][1]["revoked"], &json["ca"][0]["in_use"]),
        (&Value::Null, &Value::Bool(true))
    );

    let rotated = done(dir, "ca rotate");
    assert!(
        rotated.contains("\n  2. then issue each host a new certificate with `ambassador ca issue NAME`"),
        "{rotated}"
    );
    let (code, out, err) = run(dir, "ca rotate --finish");
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(
        err.starts_with(
            "error: ambassador-ca/issued.json: no certificate of the new CA was issued for: host2\n  help: "
        ),
        "{err}"
    );
    done(dir, "ca issue host2");
    assert!(done(dir, "ca rotate --finish").starts_with("removed the previous key\n"));
    let listed = done(dir, "ca list");
    assert!(listed.lines().count() == 3 && listed.lines().nth(1).unwrap().starts_with("host2  "), "{listed}");
}

#[test]
fn mistakes_name_the_place_and_a_way_out() {
    let dir = tempfile::tempdir().unwrap();
    for (args, code, expected) in [
        (
            "ca issue host1",
            1,
            "error: ambassador-ca: has no CA\n  help: `ambassador ca init` creates one; --dir names its directory\n",
        ),
        ("ca issue ../host1", 64, "invalid value '../host1' for '<NAME>': a name has 1 to 64 letters"),
        ("ca init --name a/b", 64, "invalid value 'a/b' for '--name <NAME>'"),
        ("ca issue host1 --days many", 64, "invalid value 'many' for '--days <DAYS>'"),
        ("ca isue host1", 64, "unknown command `isue`: did you mean `issue`?"),
        ("peer secert", 64, "unknown command `secert`: did you mean `secret`?"),
        ("ca list --dir /nonexistent", 1, "error: /nonexistent: has no CA\n"),
    ] {
        let (found, _, err) = run(dir.path(), args);
        assert!(found == code && err.contains(expected), "{args}: {found} {err}");
    }
}

#[test]
fn secret_is_random_and_its_file_is_private() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let print = |file: File| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ambassador"));
        command.args(["peer", "secret"]).env_clear().stdout(Stdio::from(file)).status().unwrap()
    };
    assert!(print(File::create(&path).unwrap()).success());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(print(OpenOptions::new().append(true).open(&path).unwrap()).success());
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() == 2 && lines[0] != lines[1], "{}", lines.len());
    assert!(lines.iter().all(|line| line.len() == 64 && line.bytes().all(|byte| byte.is_ascii_hexdigit())));
    assert_eq!(done(dir.path(), "peer secret").len(), 65);
}
