"""Runs `.ci/import_circles.py` on small crates."""

import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

TOOL = Path(__file__).parent.parent / ".ci/import_circles.py"

NO_CIRCLE = {
    "lib.rs": "pub mod error;\npub mod queue;\npub use queue::Queue;\n",
    "error.rs": "pub struct Error;\n",
    "queue.rs": "use crate::error::Error;\npub struct Queue(Option<Error>);\n",
}


class ImportCircles(unittest.TestCase):
    def run_tool(self, files, *options):
        """Returns the exit code of the tool for a crate of these files, and what it prints."""
        with tempfile.TemporaryDirectory() as crate:
            for name, code in files.items():
                file = Path(crate, "src", name)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(code)
            ended = subprocess.run([sys.executable, TOOL, *options, crate], capture_output=True, text=True)
        self.assertEqual(ended.stderr, "")
        return ended.returncode, ended.stdout

    def assert_circle(self, files, *modules):
        code, printed = self.run_tool(NO_CIRCLE | files)
        self.assertEqual(code, 1, printed)
        self.assertEqual(sorted(line.split()[0] for line in printed.splitlines()[1:]), sorted(modules))

    def assert_no_circle(self, files):
        self.assertEqual(self.run_tool(NO_CIRCLE | files), (0, ""))

    def test_files_without_circle_pass(self):
        self.assert_no_circle({})

    def test_imports_by_use_form_circle(self):
        for use in (
            "use crate::queue::Queue;",
            "use super::queue::Queue as Other;",
            "use super::{\n    queue::{self, Queue},\n};",
            "pub(crate) use crate::queue::*;",
            "use super::queue;\nfn length(queue: &queue::Queue) {}",
        ):
            with self.subTest(use):
                self.assert_circle({"error.rs": use + "\npub struct Error;\n"}, "error", "queue")

    def test_imports_by_inline_path_form_circle(self):
        for code in (
            "pub struct Error(crate::queue::Queue);",
            "pub enum Error { A(char) }\nfn f() { let _ = '\"'; super::queue::Queue::new(); let _ = '\"'; }",
            "mod inner {\n    fn f() { super::super::queue::f(); }\n}\npub struct Error;",
        ):
            with self.subTest(code):
                self.assert_circle({"error.rs": code}, "error", "queue")

    def test_child_that_imports_facade_forms_circle(self):
        files = {
            "lib.rs": "pub mod text;",
            "text/mod.rs": "mod row;\npub use row::Row;\npub const LIMIT: usize = 1;\n",
            "text/row.rs": "pub struct Row([u8; super::LIMIT]);",
        }
        code, printed = self.run_tool(files)
        self.assertEqual(code, 1)
        self.assertIn("text -> text::row", printed)
        self.assertIn("text::row -> text", printed)
        files["text/mod.rs"] = "mod row;\npub const LIMIT: usize = 1;\n"
        self.assertEqual(self.run_tool(files), (0, ""))

    def test_code_for_tests_does_not_count(self):
        for code in (
            "#[cfg(test)]\nmod tests {\n    use crate::queue::Queue;\n}",
            '#[cfg(test)]\n#[expect(clippy::all, reason = "a test")]\nmod tests {\n    use crate::queue::Queue;\n}',
            "#[cfg(test)]\nuse crate::queue::{Queue};",
            "#[cfg(all(test, unix))]\nfn f() -> crate::queue::Queue { unreachable!() }",
            "pub struct Other {\n    #[cfg(test)]\n    queue: crate::queue::Queue,\n}",
        ):
            with self.subTest(code):
                self.assert_no_circle({"error.rs": code + "\npub struct Error;\n"})
                # The code after it does.
                self.assert_circle({"error.rs": code + "\npub struct Error(crate::queue::Queue);\n"}, "error", "queue")
        in_file = {
            "error.rs": "pub struct Error;\n#[cfg(test)]\nmod tests;\n",
            "error/tests.rs": "use super::Error;\nuse crate::queue::Queue;\n",
        }
        self.assert_no_circle(in_file)

    def test_comments_literals_and_visibility_do_not_count(self):
        for code in (
            "// crate::queue::Queue",
            "/// See [`Queue`](crate::queue::Queue).",
            "/* use crate::queue::Queue; */",
            'const A: &str = "crate::queue::Queue";',
            'const A: &str = r#"a " crate::queue::Queue"#;',
            "pub(in crate::queue) const A: char = 'a';",
        ):
            with self.subTest(code):
                self.assert_no_circle({"error.rs": code + "\npub struct Error;\n"})

    def test_graph_lists_imports(self):
        code, printed = self.run_tool(NO_CIRCLE, "--graph")
        self.assertEqual(code, 0)
        self.assertEqual(printed.splitlines(), ["lib -> queue", "error -> ", "queue -> error"])

    def test_directory_without_source_is_an_error(self):
        with tempfile.TemporaryDirectory() as empty:
            ended = subprocess.run([sys.executable, TOOL, empty], capture_output=True, text=True)
        self.assertEqual(ended.returncode, 2)
        self.assertIn("has no directory src", ended.stderr)


if __name__ == "__main__":
    unittest.main()
