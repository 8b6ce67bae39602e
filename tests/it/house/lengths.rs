//! A file is read in one go: it has at most 400 lines of code. Comments, blank lines and the tests at a file's end do not count.

use super::source::sources;

const MAX_LINES: usize = 400;

#[test]
fn no_file_is_too_long_to_read_in_one_go() {
    let mut too_long = Vec::new();
    for folder in ["src", "engine/src", "adapters"] {
        for source in sources(folder) {
            let lines = source.lines.len();
            if lines > MAX_LINES {
                too_long.push(format!("{}: {lines}", source.path.display()));
            }
        }
    }
    assert!(too_long.is_empty(), "{too_long:#?}");
}
