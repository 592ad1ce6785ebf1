"""Mathematical signs in Unicode as LaTeX: `x²≤½` is `x^{2}\\le \\frac{1}{2}`. Pure, linear time."""

from __future__ import annotations

import re
import unicodedata

_SIGNS = {
    "‐‑‒–—−﹣": "-", "×✕": r"\times ", "·⋅•∙・": r"\cdot ", "÷": "/", "∕⁄": "/", "∶": ":", "、": ",", "。": ".", "′’‘": "'", "″“”": "''",  # noqa: E501
    "≤⩽≦": r"\le ", "≥⩾≧": r"\ge ", "≠": r"\ne ", "≈≃": r"\approx ", "≡": r"\equiv ", "±": r"\pm ", "∓": r"\mp ",
    "∈": r"\in ", "∉": r"\notin ", "∪": r"\cup ", "∩": r"\cap ", "∅": r"\emptyset ", "∖": r"\setminus ", "∧": r"\land ", "∨": r"\lor ",  # noqa: E501
    "∞": r"\infty ", "∠": r"\angle ", "△": r"\triangle ", "°º˚": r"^\circ ", "…⋯": r"\ldots ", "→": r"\to ", "∑": r"\sum ", "∏": r"\prod ",  # noqa: E501
    "∫": r"\int ", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}", "ℂ": r"\mathbb{C}",
    "⟨": r"\langle ", "⟩": r"\rangle ", "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "∣": "|", "℃": r"^\circ C",  # noqa: E501
    "µ": r"\mu ", "∀": r"\forall ", "∃": r"\exists ", "∥": r"\parallel ", "⊥": r"\perp ", "⇒": r"\Rightarrow ", "⇔": r"\Leftrightarrow ",  # noqa: E501
    "【〔": "[", "】〕": "]", "￥": "¥",
    "「」『』": "", "\u200b\u200c\u200d\ufeff\u2060\u00ad": "",
    "\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000": " ",
}  # fmt: skip
_GREEK = dict(
    zip(
        "αβγδεζηθικλμνξπρσςτυφϕχψωΓΔΘΛΞΠΣΥΦΨΩϑϵ",
        """
    alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma varsigma tau upsilon
    varphi phi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega vartheta epsilon
    """.split(),
        strict=True,
    )
)
_TABLE = {character: latex for characters, latex in _SIGNS.items() for character in characters}
_TABLE |= {letter: rf"\{name} " for letter, name in _GREEK.items()}
_UPPER = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱˣ", "0123456789+-()nix", strict=True))
_LOWER = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋₍₎ₙᵢₖₓ", "0123456789+-()nikx", strict=True))
_UPPER_RUN = re.compile(f"[{''.join(_UPPER)}]+")
_LOWER_RUN = re.compile(f"[{''.join(_LOWER)}]+")
_FRACTIONS = {
    sign: rf"\frac{{{over}}}{{{under}}}"
    for sign in "¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"
    for over, under in [unicodedata.normalize("NFKC", sign).split("⁄")]
}
_ROOT = re.compile(r"([√∛∜])\s*(\d+(?:\.\d+)?|[A-Za-z]|\\[A-Za-z]+ ?)?")
_ROOTS = {"√": r"\sqrt", "∛": r"\sqrt[3]", "∜": r"\sqrt[4]"}
_MARKED = re.compile(r"(\d)([\u0305\u0304\u0307])")


def _character_to_latex(character: str) -> str:
    if character.isascii():
        return character
    latex = _TABLE.get(character) or _FRACTIONS.get(character)
    if latex is not None or character in _TABLE:
        return latex or ""
    # Full-width forms, and the bold, italic and other mathematical alphabets.
    code = ord(character)
    if 0xFF01 <= code <= 0xFF5E or 0x1D400 <= code <= 0x1D7FF:
        return "".join(_TABLE.get(part, part) for part in unicodedata.normalize("NFKC", character))
    return character


def _root(match: re.Match[str]) -> str:
    return _ROOTS[match[1]] + (f"{{{match[2]}}}" if match[2] else " ")


def to_latex(text: str) -> str:
    """Rewrite signs, Greek letters, superscripts, fractions, roots and full-width forms. Other characters stay."""
    if text.isascii():
        return text
    text = _MARKED.sub(lambda match: rf"\{'dot' if match[2] == chr(0x307) else 'overline'}{{{match[1]}}}", text)
    text = _UPPER_RUN.sub(lambda match: f"^{{{''.join(_UPPER[sign] for sign in match[0])}}}", text)
    text = _LOWER_RUN.sub(lambda match: f"_{{{''.join(_LOWER[sign] for sign in match[0])}}}", text)
    text = "".join(map(_character_to_latex, text))
    return _ROOT.sub(_root, text)
