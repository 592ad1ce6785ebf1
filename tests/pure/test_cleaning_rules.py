"""Rules that read text: placeholders, prose, proofs, options and parts in many layouts and languages, and similar valid text."""

from __future__ import annotations

import time
from typing import Any

import pytest

from vgs_ray.cleaning.figures import replace_figures
from vgs_ray.cleaning.rules import check


def reason(problem: str = "What is $3+4$?", answer: str = "7", **columns: Any) -> str | None:
    """The reason by the text rules alone, without math-verify."""
    dropped = check({"problem": problem, "answer": answer, **columns}, lambda gold, box: True, lambda text: True)
    return dropped and dropped.reason


@pytest.mark.parametrize(
    "answer",
    [
        "notfound", "Not found", "not_found", "unknown", r"\text{Unknown}", "None", r"\text{none}", "N/A", "n/a", "NA", "null",
        "NaN", r"\text{proof}", "Proof.", r"\boxed{\text{proof}}", "QED", "Q.E.D.", "see solution", "See the proof.",
        "(see above)", "no answer", "Answer not found", "证明题，略", "证明略", "略", "見解析", "无", "解答略",
        "доказательство", "см. решение", "siehe Lösung", "voir la solution", "ver solución", "풀이 참조", "省略",
    ],
)  # fmt: skip
def test_placeholders_are_no_answers(answer: str) -> None:
    assert reason(answer=answer) == "not_checkable"


@pytest.mark.parametrize(
    "answer",
    [
        "The answer is a circle.",
        "The sequence is convergent.", "The series diverges.", r"\text{a circle}", r"\text{the line segment } AB",
        r"n \text{ is odd}", r"n\text{ odd}", r"n \text{ even}", "odd integers", r"\text{all real numbers}",
        r"\text{All integers } M \ge 2", "all primes", r"3 \text{ if } n \text{ is odd}", r"2 if $n=2k$ and 1 if $n \neq 2k$",
        r"(a,b) \text{ such that } |a|=|b|", r"x \text{ can be any number}", r"$f(x)=C$, where $C=0$", "Bob wins",
        "$a$ must equal $7$.", r"\text{An equilateral triangle}", r"\text{for every } a", r"\text{at least } 5", "un cercle",
        "Die Folge konvergiert.", "una circunferencia", "当 $a>0$ 时, $x=1$",
        "Последовательность строго возрастает на всей числовой прямой", "圆心在原点的圆",
    ],
)  # fmt: skip
def test_prose_is_no_answer(answer: str) -> None:
    assert reason(answer=answer) == "not_checkable"


@pytest.mark.parametrize(
    "answer",
    [
        "The answer is $17/21$.", r"\text{Answer: }5", "$P(x)=t x$ for any real number $t$",
        "7", "-7", r"\frac{1}{2}", r"\text{Yes}", "No.", r"\text{Monday}", r"\text{June 20}", r"\text{east}", "Alice",
        r"\text{Bob and Carol}", r"\text{odd}", r"\text{even}", r"\text{ellipse}", r"\text{neither}", "True",
        "infinitely many", r"\text{no solution}", r"\text{does not exist}", "undefined", r"x \text{ or } y",
        r"1 \text{ and } 2", r"x=3 \text{ or } x=5", r"5 \text{ cm}", r"12\text{ square inches}", r"18\text{ integers}",
        r"5 \text{ feet per second}", r"5 miles an hour", r"6 \text{ dollars each}", r"9:30\text{ AM}", "a cos x",
        r"a \text{ and } b", r"a\cos x + b", "n/2", "na", "e", r"\mathrm{e}", "i", r"f(x)=x^2 \text{ for all } x",
        r"a_{\text{max}} = 3", r"\begin{cases} 1 & \text{if } x>0 \\ 0 & \text{otherwise} \end{cases}", r"\ln 2", r"\max(a,b)",
        "$x=1$ 或 $x=2$", "7元", "15平方厘米", "3 千米", r"P(X=0)=\frac12", r"\overline{CD}", r"5 \pmod{7}", r"\infty", "да",
        "12 см", "B \\cup C",
    ],
)  # fmt: skip
def test_values_are_kept(answer: str) -> None:
    assert reason(answer=answer) is None


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"question_type": "proof"}, "not_checkable"),
        ({"question_type": "Proof"}, "not_checkable"),
        ({"problem_type": "proof"}, "not_checkable"),
        ({"answer_type": "proof"}, "not_checkable"),
        ({"question_type": "theorem_proving"}, "not_checkable"),
        ({"question_type": "证明题"}, "not_checkable"),
        ({"question_type": "MCQ"}, "multiple_choice"),
        ({"answer_type": "Multiple Choice"}, "multiple_choice"),
        ({"problem_type": "multiple-choice-question"}, "multiple_choice"),
        ({"question_type": "math-word-problem", "problem_type": "Algebra", "answer_type": "Integer"}, None),
        ({"problem_type": "converted_proof"}, None),  # of OpenMathReasoning: proofs made into questions with a value
        ({"problem_type": "has_answer_extracted"}, None),
        ({"question_type": None, "problem_type": 3}, None),
    ],
)
def test_columns_with_the_kind_of_a_row(columns: dict[str, Any], expected: str | None) -> None:
    assert reason(**columns) == expected


@pytest.mark.parametrize(
    "problem",
    [
        "Verify that $f(x)=x^2$ is convex on the reals.", "Let $n$ be odd. Verify the identity $n=n$.",
        "Verify: $(a+b)^2=a^2+2ab+b^2$.", "If $x>0$, verify that $x+1>1$.", "Justify that the sum of two odd numbers is even.",
        "Justify why $n^2+n$ is even.", "Give a proof of the irrationality of $\\sqrt{2}$.",
        "Provide a short proof that there are infinitely many primes.", "Let $a=b$. Deduce that $a^2=b^2$.",
        "Establish the inequality $a^2+b^2\\ge 2ab$.", "Show: $a^2\\ge 0$.", "Show $a^2+b^2\\ge 2ab$.",
        "Show by induction that $2^n>n$.", "Show the existence of a prime above $n$.",
        "Explain why $\\sqrt{2}$ is irrational.", "Use the mean value theorem to show that $|\\sin x|\\le |x|$.",
        "Use induction to verify that $2^n>n$.", "Can you prove that $n^2+n$ is even?",
        "Proof: the angles of a triangle add up to $180^\\circ$.", "Démontrer que $n^2+n$ est pair.",
        "Montrer que $n^2+n$ est pair.", "Prouvez l'inégalité $a^2\\ge 0$.", "Vérifier que $2$ est racine.",
        "Man zeige, dass $n^2+n$ gerade ist.", "Beweisen Sie, dass $n^2+n$ gerade ist.", "Zeige, dass $n^2+n$ gerade ist.",
        "Demuestre que $n^2+n$ es par.", "Demostrar que $n^2+n$ es par.", "Pruebe que $n^2+n$ es par.",
        "Muestra que $n^2+n$ es par.", "Dimostrare che $n^2+n$ è pari.", "Si dimostri che $n^2+n$ è pari.",
        "Provare che $n^2+n$ è pari.", "Demonstre que $n^2+n$ é par.", "Mostre que $n^2+n$ é par.",
        "Докажите, что $n^2+n$ чётно.", "Доказать: $n^2+n$ чётно.", "Покажите, что $n^2+n$ чётно.",
        "Доведіть, що $n^2+n$ парне.", "Покажіть, що $n^2+n$ парне.", "证明：$n^2+n$ 是偶数。", "求證：$n^2+n$ 是偶數。",
        "試證明 $n^2+n$ 是偶數。", "試證 $n^2+n$ 是偶數。", "验证 $n^2+n$ 是偶数。", "$n^2+n$ が偶数であることを証明せよ。",
        "$n^2+n$ が偶数であることを示せ。", "$n^2+n$이 짝수임을 증명하시오.", "$n^2+n$이 짝수임을 보이시오.",
        "$n^2+n$ sayısının çift olduğunu gösteriniz.", "$n^2+n$ sayısının çift olduğunu kanıtlayınız.",
        "Să se demonstreze că $n^2+n$ este par.", "Arătați că $n^2+n$ este par.", "Demonstraţi că $n^2+n$ este par.",
        "Udowodnij, że $n^2+n$ jest parzyste.", "Wykaż, że $n^2+n$ jest parzyste.", "Dokažte, že $n^2+n$ je sudé.",
        "Bewijs dat $n^2+n$ even is.",
    ],
)  # fmt: skip
def test_proofs_in_other_words_and_languages(problem: str) -> None:
    assert reason(problem, "True") == "not_checkable"


@pytest.mark.parametrize(
    "problem",
    [
        "To prove himself, Tom ran 3 laps. How many metres?", "Records show that 12 of 48 paid in cash. What fraction is that?",
        "A salesman must demonstrate the toy 12 times a day. How many times in 5 days?",
        "Marco fa 3 prove. Quanti minuti in tutto?",
        "A proof that is 12 pages long is copied 3 times. How many pages are copied?", "On démontre que $n=7$. Calculer $n$.",
        "You may use without proof that $a=1$. Find $a+6$.", "1994年被证明的定理，各位数字之和是多少？",
        "Find the sum of 3 and 4. Show your work.", "Show all your steps. What is $3+4$?",
        "What is $3+4$? Justify your answer.", "Find the number of roots, and justify that there are no others.",
        "Verify that $x=2$ is a root and find the other root.",
        "Alice wants to verify that the till has 30 dollars. It has 23. How many are missing?",
        "Bob tried to prove that he could run 10 km. He stopped 3 km before the end. How many km did he run?",
        "She could prove 7 of 10 theorems. How many did she prove?", "A TV show has 7 episodes. How many hours do they last?",
        "It can be shown that $n$ is unique. Find $n$.", "A clerk checks that 3 of 10 forms are signed. How many are not?",
        "持学生证明可享受8折优惠，原价10元的票多少元？", "可以证明 $n$ 唯一，求 $n$。", "写出 $a$ 的最大整数值，并说明理由。",
        "Можно доказать, что $n$ единственно. Найдите $n$.", "La montre de Paul montre 3 heures. Combien d'heures reste-t-il?",
        "Una prueba tiene 20 preguntas. ¿Cuántas quedan después de 13?", "Una prova ha 20 domande. Quante ne restano dopo 13?",
        "Der Beweis hat 7 Zeilen. Wie viele Zeilen hat er?", "Tom is waterproofing 7 tents. How many tents does Tom treat?",
    ],
)  # fmt: skip
def test_problems_with_proof_words_that_ask_for_a_value_are_kept(problem: str) -> None:
    assert reason(problem) is None


@pytest.mark.parametrize(
    "options",
    [
        "[A] 4 [B] 6 [C] 7 [D] 9", "\n[A] 4\n[B] 6\n[C] 7", "\n(a) 4\n(b) 6\n(c) 7\n(d) 9", " (a) 4 (b) 6 (c) 7 (d) 9",
        " a) 4 b) 6 c) 7 d) 9", "\na. 4\nb. 6\nc. 7\nd. 9", " A、4 B、6 C、7 D、9", " A、4B、6C、7D、9",
        "\nA．4\nB．6\nC．7\nD．9", "\nＡ．4 Ｂ．6 Ｃ．7 Ｄ．9", " ① 4 ② 6 ③ 7 ④ 9", " (А) 4 (Б) 6 (В) 7 (Г) 9",
        "\nА) 4\nБ) 6\nВ) 7\nГ) 9", " А. 4 Б. 6 В. 7 Г. 9", "\nA: 4\nB: 6\nC: 7\nD: 9", " A: 4 B: 6 C: 7 D: 9",
        "\n- A) 4\n- B) 6\n- C) 7\n- D) 9", "\n* **A.** 4\n* **B.** 6\n* **C.** 7\n* **D.** 9",
        "\n**A)** 4\n**B)** 6\n**C)** 7\n**D)** 9", "\n| A | 4 |\n| B | 6 |\n| C | 7 |\n| D | 9 |",
        "\n| A. | 4 | B. | 6 | C. | 7 | D. | 9 |", "\n**A** 4\n**B** 6\n**C** 7\n**D** 9", " (A)4(B)6(C)7(D)9",
        "\n$A$. 4\n$B$. 6\n$C$. 7\n$D$. 9", r" \[A\] 4 \[B\] 6 \[C\] 7 \[D\] 9", " (1) 4 (2) 6 (3) 7 (4) 9",
        " （A）4 （B）6 （C）7 （D）9", "\nア. 4\nイ. 6\nウ. 7\nエ. 9",
        "\nA 4\nB 6\nC 7\nD 9", "\n- **A** 4\n- **B** 6\n- **C** 7\n- **D** 9", "\nOption A: 4\nOption B: 6\nOption C: 7",
        "\n<li>A. 4</li><li>B. 6</li><li>C. 7</li><li>D. 9</li>", "\n- (a) 4\n- (b) 6\n- (c) 7", " {A} 4 {B} 6 {C} 7",
    ],
)  # fmt: skip
def test_choices_in_many_layouts(options: str) -> None:
    assert reason(f"Which of these is prime?{options}") == "multiple_choice"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("C", "multiple_choice"), ("(C)", "multiple_choice"), (r"\textbf{(C)}", "multiple_choice"), ("[C]", "multiple_choice"),
        ("Option C", "multiple_choice"), ("(C) 7", "multiple_choice"), (r"\textbf{(C)}\ 7", "multiple_choice"),
        ("C. 7", "multiple_choice"), ("В", "multiple_choice"), ("③", "multiple_choice"), ("①③", "multiple_choice"),
        ("ABD", "multiple_choice"), ("A, C", "multiple_choice"), ("选C", "multiple_choice"), ("c)", "multiple_choice"),
        ("c", None), ("e", None), ("(B \\cup C)", None), ("F", None),
        ("AC", "multiple_choice"),
    ],
)  # fmt: skip
def test_answers_that_are_options(answer: str, expected: str | None) -> None:
    assert reason("Which of these numbers is prime: 4, 6, 7 or 9?", answer) == expected


def test_letters_that_the_problem_uses_are_kept() -> None:
    assert reason("In triangle $ABC$ with $AB=3$ and $AC=4$, which side is longer?", "AC") is None
    assert reason("Three knaves A, B and C speak. Who lies?", "A, C") is None


@pytest.mark.parametrize(
    "problem",
    [
        "Points $A$, $B$, $C$ and $D$ lie on a circle. How many chords join them?", "点A、B、C、D在圆上，求弦的条数。",
        "平面上有四点 A、B、C、D，最多可连几条线段？",
        "Box A: 3 balls. Box B: 4 balls. Box C: 5 balls. Box D: 6 balls. How many balls are there?",
        "A: 3, B: 4, C: 5, D: 6. What is the sum of these?",
        "Let $[A]$, $[B]$, $[C]$ and $[D]$ be areas with sum 7. Find $[A]+[B]+[C]+[D]$.",
        "How many of these are true? (a) $1<2$ (b) $2<3$ (c) $3<2$ (d) $4<3$",
        "下列说法正确的个数是 ① $1<2$ ② $2<3$ ③ $3<2$ ④ $4<3$",
        "The function satisfies: (a) $f(0)=1$, (b) $f(1)=2$, (c) $f(2)=4$, (d) $f(3)=8$. Find $f(4)$.",
        "Is $f$ bounded? Consider (a) $f(0)=1$, (b) $f(1)=2$ and (c) $f(2)=4$. Find $f(3)$.",
        "| A | B | C | D |\n|---|---|---|---|\n| 1 | 2 | 3 | 4 |\nWhat is the sum of the row?",
        "Jugs (A), (B) and (C) hold 2, 3 and 2 litres. How much do they hold together?",
        "The workers are counted below.\n| A | B | C | D |\n|---|---|---|---|\n| 1 | 2 | 3 | 4 |",
        "Among the numbers ① $1$ ② $2$ ③ $3$ ④ $7$ the largest is ____.",
    ],
)  # fmt: skip
def test_points_labels_and_cases_are_no_choices(problem: str) -> None:
    assert reason(problem) is None


@pytest.mark.parametrize(
    "problem",
    [
        "What is (a) the sum and (b) the product of 2 and 3?", "- Find $x$.\n- Find $y$.", "α) Find $x$. β) Find $y$.",
        "Find:\n- the sum of 2 and 3,\n- the product of 2 and 3.", "1.Find $x$. 2.Find $y$.",
        "i) Find the sum; ii) find the product", "(i) Find the sum. (ii) Find the product.",
        "i. Find the sum. ii. Find the product.", "(1) 求 $a$ 的值；(2) 求 $b$ 的值。",
        "（1）求 $a$ 的值；（2）若 $b=1$，求 $c$。", "已知 $a>0$，求：(1) $a$ 的值；(2) $b$ 的值。",
        "**1.** Find the sum. **2.** Find the product.", "**1.** What is $2+3$?\n\n**2.** What is $2\\cdot 3$?",
        "1\\. Find $2+3$.\n\n2\\. Find $2-3$.", "**(1)** Find the sum. **(2)** Find the product.",
        "Question 1. Find the sum. Question 2. Find the product.",
        "**Question 1:** What is $x$?\n**Question 2:** What is $y$?", "Q1: What is $x$? Q2: What is $y$?",
        "第(1)问：求 $a$；第(2)问：求 $b$。", "第一问求 $a$，第二问求 $b$。", "問1 $2+3$ を求めよ。問2 $2-3$ を求めよ。",
        "a. Find the sum. b. Find the product.", "a) Find $x$ b) Find $y$", "① Find $x$. ② Find $y$.",
        "Given $f$. (Ⅰ) Find $f(1)$; (Ⅱ) find $f(2)$.", "[a] Find $2+3$. [b] Find $2-3$.",
        "а) Найдите сумму. б) Найдите произведение.", "1) Вычислите $2+3$. 2) Вычислите $2-3$.",
        "a) Calculer $x$. b) Calculer $y$.", "a) Berechne $x$. b) Bestimme $y$.", "a) Halla $x$. b) Calcula $y$.",
        "\\begin{enumerate}\\item Find $x$. \\item Find $y$.\\end{enumerate}",
    ],
)  # fmt: skip
def test_parts_in_many_layouts(problem: str) -> None:
    assert reason(problem) == "several_questions"


@pytest.mark.parametrize(
    "problem",
    [
        "Solve the system: (1) $x+y=5$, (2) $x-y=1$. Give $x$.", "Find $x$ from the equations: (1) $2x+y=7$, (2) $x-y=2$.",
        "Given $x+y=3$ (1) and $x-y=1$ (2). Find $x$.", "From $x+y=3\\quad(1)$ and $x-y=1\\quad(2)$, determine $x$.",
        "$f$ satisfies: (1) $f(1)=1$; (2) $f(2)=3$; (3) $f$ is linear. Find $f(4)$.",
        "已知 $f$ 满足：(1) $f(1)=1$；(2) $f(2)=3$。求 $f(4)$。",
        "i. Each row holds 3 seats. ii. There are 2 rows and one more seat. How many seats are there?",
        "1. Alice reads a list of 3 words. 2. Bob reads 4 words. How many words are read?",
        "The rules: a) the estimate of Anita is 3; b) that of Bob is 4. What is their sum?",
        "Let $z=(2+i)(1+ii)$. Find $|z|$.", "Step 1: take 3. Step 2: add 4. What is the result?",
        "In part 1 of a race he runs 3 km, in part 2 he runs 4 km. How far does he run?",
        "Case (a): $x>0$. Case (b): $x<0$. How many cases are there?",
    ],
)  # fmt: skip
def test_conditions_and_equation_numbers_are_no_parts(problem: str) -> None:
    assert reason(problem) is None


def test_figures_are_replaced_whole() -> None:
    assert replace_figures("a [asy]b[/asy] c <asy>d</asy> e", "F") == "a F c F e"
    assert replace_figures(r"a \begin{tikzpicture}b\end{tikzpicture} c", "F") == "a F c"
    assert replace_figures("a [asy] b", "F") == "a [asy] b"


HOSTILE = (
    " ", "\n", "(", "( ", "(a) ", "(A) ", "A. ", "A、", r"\text", r"\text ", "$ ", "* ", "| ", "[asy]", r"\begin{asy}", "[A] ",
    "verify that ", "use to ", "could prove ", "find a ", "1. ", "\n\n", "? ", "_{a", "the ", "<br ", "show, by ", "证明",
    "- ",
)  # fmt: skip


@pytest.mark.parametrize("column", ["problem", "answer"])
def test_time_is_linear_in_hostile_text(column: str) -> None:
    """15,000 characters take about 0.05 s; a rule with quadratic time would take longer than 2 s."""
    for unit in HOSTILE:
        for end in ("x", "?"):
            text = (unit * (15_000 // len(unit) + 1))[:15_000] + end
            began = time.process_time()
            reason(**{column: text})
            assert time.process_time() - began < 2, (unit, end)
