"""What is found wrong is one line, whatever the user's file holds."""

import pytest

from botvision.datasets.check.findings import Finding


@pytest.mark.parametrize("text", ["a\nb", "a\rb", "a\x85b", "a\u2028b", "a\x0bb", "a\x1cb"])
def test_a_message_is_one_line(text):
    finding = Finding("error", f"{text}.json", f"image {text}", text, "file_name", text, "none")
    assert len(finding.message.splitlines()) == 1
    assert text not in finding.message


def test_other_text_stays_what_it_is():
    finding = Finding("error", "möbel/a b.json", "image 7", 7, said="größer als „b“, C:\\data")
    assert finding.message == "möbel/a b.json: image 7: größer als „b“, C:\\data"
