"""Several questions in one problem: enumerated parts that each ask something. Pure.

Conditions, cases, steps, options and equations are enumerated as well, so the marks alone do not decide.
"""

from __future__ import annotations

import re

_VERBS = (
    r"find|determine|calculate|compute|evaluate|solve|express|write|list|sketch|draw|simplify|state|discuss|give|describe|"
    r"explain|prove|show|construct|estimate|verify|justify|factor|expand|"
    r"trouve[rz]?|calcule[rz]?|d[ée]termine[rz]?|r[ée]soudre|montre[rz]|d[ée]montre[rz]|bestimmen?|berechnen?|beweisen?|finde[nt]?|"
    r"hall[ae]r?|calcul[ae]r?|encuentr[ae]|encontr[ae]r?|resuelv[ae]|demuestr[ae]|determin[ae]r?|trova(?:re|te)?|"
    r"calcola(?:re|te)?|dimostra(?:re|te)?|afla[țţt]i|calcula[țţt]i|ar[ăa]ta[țţt]i|determina[țţt]i|oblicz|wyznacz|znajd[źz]|"
    r"hesaplay[ıi]n(?:[ıi]z)?|bulun(?:uz)?"
)
_OTHER_SCRIPTS = (
    r"\b(?:найд(?:и|ите)|найти|вычисл(?:и|ите|ить)|определ(?:и|ите|ить)|реш(?:и|ите|ить)|докажите|сколько|знайд(?:и|іть)|"
    r"обчисл(?:и|іть)|доведіть|скільки)\b|[请請试試]?求(?!和)|计算|計算|证明|證明|写出|寫出|判断|判斷|讨论|討論|解方程|解不等式|"
    r"化简|化簡|多少|是否|说明理由|구하|구해|계산하|증명하"
)
_NO_NOUN = (
    r"(?<!'s )(?<!’s )(?<!\bthe )(?<!\ban )(?<!\ba )(?<!\bof )(?<!\bin )(?<!\bthis )(?<!\beach )"  # an estimate, a list
)
_ASKS = re.compile(rf"[?？]|\b{_NO_NOUN}(?:{_VERBS})\b|{_OTHER_SCRIPTS}", re.I)
_OFFERS = re.compile(
    r"[?？][\s*_$)）|>-]{0,8}$|\b(?:is|are|equals?|be|следующих|вариант\w{0,3})[\s*_$]{0,4}:?[\s*_$|>-]{0,8}$|[（(]\s{0,8}[)）][\s。.*$|>-]{0,8}$|_{2,}[\s.。*$|>-]{0,8}$"
    r"|\b(?:which|choose|select|options?|pick)\b[^.?!]{0,200}[:.]?[\s*_$|>-]{0,8}$|(?:是|为|為|下列|选择)[^。？！]{0,60}[:：]?[\s*_$|>-]{0,8}$",
    re.I,
)
_CHOOSES = re.compile(r"\b(?:which of|choose|select|pick)\b|下列", re.I)
_HOW_MANY = re.compile(
    r"\b(?:how many|number of|count)\b|个数|個數|有几|有幾|几个|幾個|сколько|скільки|combien|cu[aá]nt[ao]s|wie viele|quanti\b",
    re.I,
)
_ASKS_NEXT = re.compile(
    rf"(?:\b(?:{_VERBS}|answer)(?: the)?(?: following| values?)*(?: of)?(?: expressions?| equations?| questions?)?"
    r"|求|计算|計算|解方程|解不等式|化简|求下列各式的值|解下列方程|解下列不等式|计算下列各题|回答下列问题)[:：]$",
    re.I,
)
_SYSTEM = re.compile(
    r"\b(?:system|simultaneous\w*|from the equations?)\b|方程组|方程組", re.I
)  # the equations of a system are numbered
_ASKS_NOW = re.compile(r"^\s?(?:find|determine|calculate|compute|evaluate|simplify|what (?:is|are))\s?$", re.I)
_CONDITION = re.compile(
    r"\b(?:such that|satisf\w+|condition\w*|propert\w+|rules?|following (?:are|is|hold)|where|if|for which)\b"
    r"|满足|滿足|条件|條件",
    re.I,
)
_LEAD_CHARS = 300  # characters before the first mark that are searched

_BEFORE = r"(?<![A-Za-z0-9\\)}^])"  # f(a) and (x+1)(2) are no marks
_OPEN, _CLOSE = r"(?:\*\*|__|<b>|<strong>|\\textbf\{)?", r"(?:\*\*|__|</b>|</strong>|\})?"
_AFTER = rf"(?:\\?[.):°/]{_CLOSE}(?:\s|(?=[\u4e00-\u9fffA-Z]))|[、．])"
_STOP = r"(?:^|\n|(?<=[.:;?。；：？$])\s{0,4})[^\w.?!;:,。？；：]{0,4}"
_PARTS = [
    (re.compile(first, re.I), re.compile(second, re.I))
    for first, second in (
        (rf"{_BEFORE}[（(]\s?a\s?[)）]", rf"{_BEFORE}[（(]\s?b\s?[)）]"),
        (
            rf"{_STOP}{_OPEN}a{_CLOSE}[.)]{_CLOSE}\s",
            rf"(?:\n|(?<=[.:;?,])\s{{0,4}})[^\w.?!;:,]{{0,4}}{_OPEN}b{_CLOSE}[.)]{_CLOSE}\s",
        ),
        (r"(?:^|\s)a\)\s", r"\sb\)\s"),
        (rf"{_BEFORE}[（(]\s?(?:i|Ⅰ)\s?[)）]", rf"{_BEFORE}[（(]\s?(?:ii|Ⅱ)\s?[)）]"),
        (rf"(?:^|[\s:;,*]){_OPEN}i{_CLOSE}[.)]{{1,2}}{_CLOSE}\s", rf"[\s:;,*]{_OPEN}ii{_CLOSE}[.)]{{1,2}}{_CLOSE}\s"),
        (rf"{_BEFORE}[（(]\s?1\s?[）)]", rf"{_BEFORE}[（(]\s?2\s?[）)]"),
        (
            rf"{_STOP}{_OPEN}1{_CLOSE}{_AFTER}",
            rf"{_STOP}{_OPEN}2{_CLOSE}{_AFTER}",
        ),
        (r"(?:^|\s)1\)\s", r"\s2\)\s"),
        (rf"{_BEFORE}[（(]?а[)）]\s", rf"{_BEFORE}[（(]?б[)）]\s"),
        (r"(?<![\w\])])[\[【]\s?(?:a|1)\s?[\]】]", r"(?<![\w\])])[\[【]\s?(?:b|2)\s?[\]】]"),
        (r"\\item\b", r"\\item\b"),
        ("①|⑴|[（(]ア[)）]", "②|⑵|[（(]イ[)）]"),
        (r"(?:^|\s)[aα][)/]\s", r"\s[bβ][)/]\s"),
        (rf"(?:^|\n)\s{{0,3}}[-*•+]\s(?=(?:{_VERBS})\b)", rf"\n\s{{0,3}}[-*•+]\s(?=(?:{_VERBS})\b)"),
        (r"[（(]一[)）]|(?<![\w第])一、", r"[（(]二[)）]|(?<![\w第])二、"),
        (
            r"\b(?:question|problem|part|task|exercise|aufgabe|frage|teil|вопрос|задача|часть|pregunta|parte)\s?(?:1|A|I|one)\b",
            r"\b(?:question|problem|part|task|exercise|aufgabe|frage|teil|вопрос|задача|часть|pregunta|parte)\s?(?:2|B|II|two)\b",
        ),
        (r"\bQ\.?\s?1\b", r"\bQ\.?\s?2\b"),
        (
            r"[问問設设]\s?[1一]|第\s?[（(]?[1一][)）]?\s?[问問小题題]|问题\s?[1一]|問題\s?[1一]",
            r"[问問設设]\s?[2二]|第\s?[（(]?[2二][)）]?\s?[问問小题題]|问题\s?[2二]|問題\s?[2二]",
        ),
    )
]

_LISTED = re.compile(  # "Find: - the sum - the product"
    r"\b(?:find|determine|calculate|compute|evaluate)[:：]\s{0,4}\n\s{0,3}[-*•+]\s[^\n]*\n\s{0,3}[-*•+]\s", re.I
)


def several_questions(problem: str) -> re.Match[str] | None:
    """The mark of the first of several parts that each ask something. None for one question. Takes linear time."""
    for first, second in _PARTS:
        one = first.search(problem)
        two = one and second.search(problem, one.end())
        if one and two and _each_asks(problem[: one.start()], problem[one.end() : two.start()], problem[two.end() :]):
            return one
    return _LISTED.search(problem)


def _each_asks(lead: str, one: str, two: str) -> bool:
    if _ASKS.search(one) and _ASKS.search(two):
        return True
    if _SYSTEM.search(lead[-_LEAD_CHARS:]):
        return False
    asked = re.split(r"[.?!。？！]\s?", _stripped(lead))[-1]  # "Find: (a) the area, (b) the perimeter"
    if _ASKS_NEXT.search(asked):
        return True
    if _ASKS_NOW.search(asked) and one.strip(" ,.;$") not in ("", "and", "or"):  # "Evaluate (1) 2+3 and (2) 4+5"
        return True
    return asked.endswith((":", "：")) and bool(_ASKS.search(asked)) and not _CONDITION.search(asked)


def _stripped(lead: str) -> str:
    """The end of a text, with markup replaced by spaces and removed from its end."""
    return re.sub(
        r"(?:\s|\$|\*|<br ?/?>)+", lambda match: " " if match.end() < len(match.string) else "", lead[-_LEAD_CHARS:]
    )


def asks(text: str, of_choice: bool = False) -> bool:
    """Whether a text asks something or, with `of_choice`, ends in a question that may be followed by options."""
    if not of_choice:
        return _ASKS.search(text) is not None
    end = _stripped(re.sub(r"<li>|\|[-|\s:]{0,80}$", "", text[-_LEAD_CHARS:]))
    if _OFFERS.search(end) is None:
        return False
    last = re.split(r"[.?!。？！]\s", end)[-1]
    return _CHOOSES.search(last) is not None or not _CONDITION.search(last)


def asks_how_many(text: str) -> bool:
    """Whether the end of a text asks how many things there are, such as true statements in a list that follows."""
    return _HOW_MANY.search(text[-_LEAD_CHARS:]) is not None
