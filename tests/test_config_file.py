"""YAML configs: unreadable ones and resolvers give one line; what a config says is never looked up outside it."""

import pytest

from musepose.inference.cases import read_config
from musepose.utils.config_file import read_config_file, read_yaml
from musepose.utils.errors import UserError
from musepose.utils.schema import Rule, check_section


@pytest.mark.parametrize("text", ["${oc.env:SECRET}", "a/${oc.env:SECRET,none}.png", "${ oc.decode : '1'}", "${x.y:1}"])
@pytest.mark.parametrize("place", ["test_cases: {{{}: [a.mp4]}}", "test_cases: {{a.png: [{}]}}", "output: {}"])
def test_the_environment_is_not_looked_up(tmp_path, monkeypatch, text, place):
    monkeypatch.setenv("SECRET", "hunter2")
    path = tmp_path / "c.yaml"
    quoted = "'" + text.replace("'", "''") + "'"
    path.write_text(place.format(quoted))
    if place.endswith("[a.mp4]}}"):  # a key stays as it is written
        assert list(read_config(path).values["test_cases"]) == [text]
        return
    with pytest.raises(UserError, match="asks for more than another key's value") as error:
        read_config(path)
    assert "hunter2" not in str(error.value)


def test_an_override_is_not_looked_up_either(tmp_path):
    (tmp_path / "c.yaml").write_text("a: 1")
    with pytest.raises(UserError, match="asks for more than another key's value"):
        read_config_file(tmp_path / "c.yaml", "x", ["a=${oc.env:HOME}"])


def test_many_values_are_read_and_aliases_that_multiply_are_not(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("".join(f"{n}.png: [a.mp4]\n" for n in range(5000)))  # 15,001 values for OmegaConf
    assert len(read_yaml(path, "x")) == 5000
    path.write_text("a: &a [x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a]\n" + "c: [" + "*b, " * 300 + "]")
    with pytest.raises(UserError, match="its aliases, `.name`, stand for more than 10,000 values.: correct it"):
        read_yaml(path, "x")


def test_other_keys_are_looked_up(tmp_path):
    (tmp_path / "c.yaml").write_text("folder: out\nsaved: ${folder}/weights\n")
    assert read_yaml(tmp_path / "c.yaml", "x") == {"folder": "out", "saved": "out/weights"}


@pytest.mark.parametrize(
    "content",
    [
        b"a: [",
        b"a: ${",
        b"a: ${b}",
        b"a: ${a}",
        b"\x00\x01",
        b"\xff\xfe",
        b"a: !!python/object/apply:os.system [id]",
        b"[" * 3000,
        b"a: " + b"{x: " * 3000,
        b"- 1",
        b"just text",
        b"a: &a [*a]",
        b"? {b: 1}\n: 2",
        b"a: 0x" + b"f" * 5000 + b"\nb: ${c}",
        b"a: 1\na: 2",
        b"\n".join(
            [
                b"a: &a0 [x, x, x]",
                *(b"b%d: &a%d [%s]" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 12)),
            ]
        ),
    ],
)
def test_whatever_stands_in_it_gives_one_line_or_values(tmp_path, content):
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    try:
        assert isinstance(read_yaml(path, "correct it"), dict)
    except UserError as error:
        assert "c.yaml" in str(error) and "\n" not in str(error) and len(str(error)) < 700


def test_an_unreadable_config(own_folder):
    path = own_folder / "c.yaml"
    path.write_text("a: 1")
    path.chmod(0)
    with pytest.raises(UserError, match=r"c.yaml cannot be read \(Permission denied\): check its permissions"):
        read_yaml(path, "x")


@pytest.mark.parametrize(
    ("rule", "good", "bad", "words"),
    [
        (Rule(int, 1, 8), [1, 8], [0, 9, 1.0, True, "1", [1]], "a whole number, 1 to 8"),
        (Rule(float, above=0), [1, 0.5], [0, -1, float("nan"), float("inf"), True, "1"], "a number, more than 0"),
        (Rule(bool), [True, False], [0, 1, "yes"], "true or false"),
        (Rule(choices=("a", "b c", None)), ["a", "b c"], ["c", 1, []], "a or 'b c' or None"),
        (
            Rule(list, 1, 2, items=Rule(int, 0)),
            [[0], [1, 2]],
            [[], [0, 0, 0], [-1], "ab", {}],
            "a list of 1 to 2 values",
        ),
    ],
)
def test_rules(rule, good, bad, words):
    assert all(rule.accepts(value) for value in good)
    assert not any(rule.accepts(value) for value in bad)
    assert rule.expects().startswith(words)


def test_required_and_unknown_keys():
    rules = {"width": Rule(int, required=True), "height": Rule(int)}
    with pytest.raises(UserError, match="c: width is missing: give a whole number"):
        check_section({"height": 1}, rules, "c: ")
    assert check_section({"width": 1, "height": None, "x": 2}, rules, "c: ") == {"width": 1}
    with pytest.raises(UserError, match="c: unknown key widht: is it width"):
        check_section({"width": 1, "widht": 2}, rules, "c: ", others=False)


@pytest.mark.parametrize(
    ("overrides", "values"),
    [
        (["cases={}"], {}),
        (["cases={}", "cases.b=[2]"], {"b": [2]}),
        (["cases={b: [2]}"], {"a": [1], "b": [2]}),
        (["cases={a: [3]}"], {"a": [3]}),
    ],
)
def test_an_empty_mapping_empties_what_others_are_merged_with(tmp_path, overrides, values):
    (tmp_path / "a.yaml").write_text("cases: {a: [1]}\n")
    assert read_config_file(tmp_path / "a.yaml", "b.yaml", overrides).values == {"cases": values}


@pytest.mark.parametrize(
    ("overrides", "values"),
    [
        (["cases=${other}", "other={b: [2]}"], {"cases": {"b": [2]}, "other": {"b": [2]}}),
        (["cases.b=${cases.a}"], {"cases": {"a": [1], "b": [1]}}),
        (["folder=${cases.a[0]}/x"], {"cases": {"a": [1]}, "folder": "1/x"}),
    ],
)
def test_an_override_may_refer_to_other_settings(tmp_path, overrides, values):
    (tmp_path / "a.yaml").write_text("cases: {a: [1]}\n")
    assert read_config_file(tmp_path / "a.yaml", "b.yaml", overrides).values == values
