"""Problems that ask for a proof, in the languages of public problem sets. Pure.

A word that always asks for a proof ("prove", "démontrer", "докажите", "证明") counts wherever it stands, unless it is told of
somebody ("she wants to prove that"). A word that may also go with a value ("verify", "justify", "show") counts at the
start of a clause, and only where the problem asks for nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_PROOF = re.compile(
    r"\b(?:dis)?prove\b|\bshow(?:ing)?,? (?:\w{1,20} )?that\b|\bdemonstrate (?:that|the|why)\b|\bproof that\b"
    r"|\b(?:give|provide|write|find|supply|present|complete|construct|outline) (?:\w{1,20} ){0,4}proof (?:of|for|that|by)\b"
    # French
    r"|\bd[ée]montr(?:er|ez|ons|e)\b|\bprouve[rz]?\b|\bmontr(?:er|ez|ons|e),? (?:\w{1,20} )?(?:que|qu['’])"
    r"|\b(?:[ée]tabli(?:r|ssez)|en d[ée]duire) (?:que|qu['’])"
    # German
    r"|\bbeweise(?:n sie)?,?:? (?:dass|daß|die|den|das|für|mit)\b|\bbeweise:|\bzeigen?(?: sie)?,? (?:dass|daß)\b"
    r"|\bman (?:zeige|beweise)\b|\b(?:weise(?:n sie)?|man weise) nach\b|\bzu (?:zeigen|beweisen)\b"
    # Spanish
    r"|\bdemu[eé]str(?:a|e|en|ese|ame)\b|\bdemostrar\b|\b(?:pru[eé]b(?:e|a|ese)|probar|mu[eé]str(?:e|a|ese)|mostrar) que\b"
    # Italian, Portuguese
    r"|\b(?:si )?dimostr(?:are|i|ate|ino)\b|\bdimostra che\b|\b(?:prov|mostr)(?:are|a|ate) che\b"
    r"|\bdemonstr(?:e|ar|em)\b|\b(?:prov|mostr)(?:e|ar|em) que\b"
    # Romanian, Polish, Czech, Dutch, Swedish, Hungarian
    r"|\bs[ăa] se (?:arate|demonstreze)\b|\bdemonstra[țţt]i\b|\b(?:ar[ăa]ta|dovedi)[țţt]i c[ăa]\b"
    r"|\budowodni(?:j|jcie|[ćc])\b|\b(?:wyka[żz]|poka[żz])(?:cie)?,? [żz]e\b"
    r"|\bwykaza[ćc],? [żz]e\b|\bdowie(?:[śs][ćc]|d[źz]),? [żz]e\b"
    r"|\bdoka[žz](?:te|me)\b|\buka[žz]te,? [žz]e\b|\bbewijs,? dat\b|\btoon aan,? dat\b|\b(?:bevisa|visa),? att\b"
    r"|\bbizony[íi]tsu[kd]\b|\bigazolju[kd]\b|\bmutassu[kd] meg\b"
    # Turkish
    r"|\b(?:kan[ıi]tla|ispatla)(?:y[ıi]n(?:[ıi]z)?)?(?![\w])|\bispat edin|oldu[ğg]unu g[öo]ster"
    # Russian, Ukrainian, Bulgarian, Greek
    r"|\bдокаж(?:и|ите|ем|ете|іть)\b|\bдоказать\b|\b(?:приведите|дайте) доказательство\b|\b(?:покажите|показать|покажи),? что\b"
    r"|\bдовед(?:іть|и)\b|\b(?:довести|покажіть|показати),? що\b|\bαποδε[ίι]ξ(?:τε|ετε)|\bδε[ίι]ξτε [όο]τι"
    # Chinese, Japanese, Korean, Vietnamese, Indonesian, Arabic, Hindi
    r"|(?<!可以)(?<!可)(?<!已)(?<!已经)(?<!身份)(?<!学生)[证證証]明(?![书書]|材料|文件)|求[证證証]|[试試][证證]"
    r"|ことを示[せし]|を示[せし](?:。|なさい|てください|$)|증명(?:하|해)|보이(?:시오|라|세요)|보여라|임을 보[이여]"
    r"|chứng minh|\bbuktikan\b|أثبت|برهن|सिद्ध (?:कीजिए|करें|करो)",
    re.I,
)
# Told, not asked: "Alice wants to show that", "could prove", "можно доказать".
_TOLD = re.compile(
    r"(?:\b(?:wants?|wanted|trie[sd]|try|trying|wish(?:es|ed)?|likes?|decided?|hope[sd]?|attempts?|needs?|able|likely|order) "
    r"(?:to )?|\b(?:can|could|may|might|did|does|will|would|cannot|can't|couldn't|didn't)(?: (?:he|she|they|i|one))? "
    r"|можно |можем |удалось |pour )$",
    re.I,
)
_SHOW_THAT = re.compile(r"show", re.I)
_USED_TO = re.compile(r"\b(?:us(?:e|ing)|apply|employ)\b[^.?!;]{0,150}\bto $", re.I)

_CLAIM = r"(?:identity|identities|inequality|formula|claim|statement|assertion|equality|result|relation|theorem|equation|fact)"
_MAY_PROVE = re.compile(
    r"\b(?:verify|justify|deduce|conclude|infer|argue|confirm|check|establish) "
    r"(?:(?:directly|algebraically|formally|by \w{1,20}),? )?that\b"
    rf"|\b(?:verify|establish|confirm|justify) (?:the|this) (?:\w{{1,20}} )?{_CLAIM}\b|\bverify: |^proof: "
    r"|\b(?:justify|explain|show) why\b|\bgive reasons? why\b"
    r"|\bshow(?::|,? (?:\$|\\\(|by (?:induction|contradiction)\b|for (?:all|any|every|each)\b|there (?:is|are|exist)))"
    rf"|\bshow the (?:\w{{1,20}} )?(?:{_CLAIM}|following|existence|uniqueness|convergence|divergence|irrationality|continuity)\b"
    r"|\bshow,? (?:using|by|via|with) [^.?!,]{1,60},? that\b"
    # French, German, Spanish, Portuguese, Italian, Romanian, Polish, Russian, Ukrainian, Chinese, Turkish
    r"|\b(?:v[ée]rifi|justifi)(?:er|ez|ons) (?:que|qu['’])"
    r"|\b(?:begründe|überprüfe|bestätige)n?(?: sie)?,? (?:dass|daß|warum)\b"
    r"|\b(?:verifique|compruebe|comprueba|justifique|verifica|verificar|comprobar) que\b|\bverific(?:are|a|ate) che\b"
    r"|\bverifica[țţt]i c[ăa]\b|\bsprawd[źz],? [żz]e\b"
    r"|\b(?:убедитесь|обоснуйте|проверьте|установите|объясните),? (?:что|почему)\b"
    r"|\b(?:перевірте|обґрунтуйте|переконайтеся),? що\b|[试試][说說]明|验证|驗證|do[ğg]rulay[ıi]n",
    re.I,
)
_ASKS_VALUE = re.compile(
    r"[?？]|\b(?:find|determine|calculate|compute|evaluate|solve|simplify|express|how (?:many|much|long|far|old)|what (?:is|are)|"
    r"list (?:all|the)|estimate|write (?:the|an?|down)|give the|factor|expand|"
    r"trouve[rz]?|calcule[rz]?|d[ée]terminer?|combien|quel\w{0,4}|finden?|bestimmen?|berechnen?|l[öo]sen?|wie viele?|welche\w?|"
    r"encuentr[ae]|hall[ae]r?|calcul[ae]r?|resuelv[ae]|cu[aá]nt\w{1,2}|cu[aá]l\w{0,2}|trova(?:re)?|calcola(?:re)?|quant[oie]|"
    r"encontr[ae]r?|determin[ae]r?|afla[țţt]i|calcula[țţt]i|oblicz|wyznacz|znajd[źz]|hesaplay[ıi]n|bulun|ka[çc])\b"
    r"|\b(?:найд|вычисл|определ|реш|скольк|знайд|обчисл|визнач)|求(?![证證証])|计算|計算|구하|多少|几|幾",
    re.I,
)


def asks_for_proof(problem: str) -> re.Match[str] | None:
    """Where a problem asks for a proof; None where it does not. Takes time linear in the problem."""
    return next(_proofs(problem), None)


def _proofs(problem: str) -> Iterator[re.Match[str]]:
    for found in _PROOF.finditer(problem):
        before = problem[max(0, found.start() - 200) : found.start()]
        told = _TOLD.search(before[-40:]) or (before[-3:].casefold() == "to " and _SHOW_THAT.match(found[0]))
        if not told or _USED_TO.search(before):
            yield found
    for found in _MAY_PROVE.finditer(problem):
        if _begins_clause(problem, found.start()):
            others = problem[: found.start()] + problem[found.end() :]
            if not _ASKS_VALUE.search(others):
                yield found
            return


def _begins_clause(problem: str, start: int) -> bool:
    before = problem[max(0, start - 200) : start]
    if _USED_TO.search(before):
        return True
    before = before.rstrip(" \t\r\n*_>#-")
    joined = before.casefold().endswith((" and", " then", " hence", " thus", " also", " please", " to both"))
    return joined or not before or not (before[-1].isalpha() or before[-1] in "'’") or not before[-1].isascii()
