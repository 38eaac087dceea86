#!/usr/bin/env python3
"""What transformers makes of chat templates: those of this folder, those that are built in, and single
expressions. Written to vectors.json: the template or its file, the name of its variables, and the text
or why there is none.

Needs jinja2 3.1 and transformers 5.23. Run: python make.py
"""
import datetime
import glob
import json
import os

from transformers.utils import chat_template_utils

HERE = os.path.dirname(os.path.abspath(__file__))
NOW = datetime.datetime(2026, 2, 3, 15, 4, 5)


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW


chat_template_utils.datetime = Clock
SPECIAL = {"bos_token": "<bos>", "eos_token": "<eos>"}

tool = {"type": "function", "function": {
    "name": "weather", "description": "What it's like <outside> & \"there\" – ü",
    "parameters": {"type": "object", "properties": {
        "town": {"type": "string", "enum": ["Bern", "Zürich"]},
        "days": {"type": "integer", "default": 1, "scale": 1.5e-7}, "at": {"type": "object", "properties": {
            "hour": {"type": None}}}},
        "required": ["town"], "strict": True}}}
other = {"type": "function", "function": {"name": "now", "description": "The time", "parameters": {}}}


def message(role, content, **more):
    return {"role": role, "content": content, **more}


system, hello = message("system", "  Be brief.\n"), message("user", " Hello, wörld! ")
call = message("assistant", "", tool_calls=[
    {"id": "abcdefghi", "type": "function",
     "function": {"name": "weather", "arguments": {"town": "Bern", "days": 2, "wet": True, "x": None}}}])
answer = message("tool", "{\"rain\": 0.5}", name="weather", tool_call_id="abcdefghi")
thought = message("assistant", "<think>\nHm.\n</think>\n\nHi <b>there</b>\n")
CONVERSATIONS = {
    "one": dict(messages=[hello]),
    "system": dict(messages=[system, hello]),
    "turns": dict(messages=[system, hello, thought, message("user", "And now?")]),
    "open": dict(messages=[hello, message("assistant", "Once")], add_generation_prompt=False),
    "tools": dict(messages=[system, hello, call, answer], tools=[tool, other]),
    "called": dict(messages=[hello, call, answer, thought, message("user", "Thanks")], tools=[tool]),
    "parts": dict(messages=[message("user", [{"type": "image"}, {"type": "text", "text": " what? "}])]),
    "settings": dict(messages=[hello], enable_thinking=False, date_string="1 Jan 2000"),
    "unfair": dict(messages=[message("assistant", "Me first"), message("assistant", "again")]),
}

DATA = dict(messages=[system, hello, call], n=7, x=2.5, big=1e22, small=1.5e-7, whole=3.0, neg=-3, yes=True,
            nothing=None, s="It's <a> \"test\"\n\tü\x07\xa0\u2028", words=["b", "C", "a"], nested=[[1, [2, {"k": "v"}]], {}],
            d={"z": 1, "a": [True, None], "m": {"q": 'don"t', "r": "it's"}}, empty="", long="one  two\nthree", tools=[tool])
SNIPPETS = r"""
{{ n }} {{ x }} {{ big }} {{ small }} {{ whole }} {{ neg }} {{ yes }} {{ nothing }} {{ unknown }}|
{{ s }}
{{ [s, 1, 2.0, none, true, false, unknown is defined] }}
{{ d }} {{ nested }} {{ words }} {{ [] }} {{ {} }} {{ {'a': 1, 2: 'b', none: 1.0} }}
{{ d | tojson }} {{ s | tojson }} {{ words | tojson(indent=2) }}
{{ d | tojson(indent=1) }} {{ {} | tojson(indent=2) }} {{ [[], {}] | tojson(indent=2) }}
{{ d | tojson(ensure_ascii=true, separators=(',', ':'), sort_keys=true) }} {{ s | tojson(ensure_ascii=true) }}
{{ [1.0, 1e22, 1.5e-7, 0.1, 100000.0, 1e16, 123456789012345680.0, 1e-4, 1e-5, -0.0] | tojson }}
{{ 'a' ~ 1 ~ none ~ true ~ 1.0 ~ [1] ~ unknown }}
{{ 7 / 2 }} {{ 4 / 2 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ 2 ** 0.5 }} {{ 7.5 // 2 }} {{ 1 + 2.0 }} {{ 3 * 1.5 }} {{ -n }}
{{ 'ab' * 3 }} {{ [1, 2] * 2 }} {{ [1] + [2, [3]] }} {{ words + ['z'] }}
{{ 1 < 2 }} {{ 1 < n < 9 }} {{ 1 < n < 5 }} {{ 'a' < 'b' }} {{ [1, 2] == [1, 2] }} {{ {'a': 1} == {'a': 1} }} {{ 1 == 1.0 }} {{ 1 == true }}
{{ 'a' in 'cat' }} {{ 'b' in words }} {{ 'z' in d }} {{ 'q' not in d }} {{ 3 in [1, 2] }}
{{ words[0] }} {{ words[-1] }} {{ words[9] }}| {{ d['a'][0] }} {{ d.m.q }} {{ d.none }}| {{ s[0] }} {{ s[-1:] == '\u2028' }}
{{ words[1:] }} {{ words[::-1] }} {{ words[:-1] }} {{ words[::2] }} {{ 'abcdef'[1:4] }} {{ 'abcdef'[::-1] }} {{ 'abcdef'[-3:] }} {{ 'abc'[5:] }}| {{ words[5:] }}
{{ 'x' if n else 'y' }} {{ 'x' if empty }}| {{ not empty }} {{ n and x }} {{ empty or 'or' }} {{ nothing or [] }}
{{ 'Hello wORLD it\'s'.title() }} {{ 'Hello wORLD'.capitalize() }} {{ 'ß'.upper() }} {{ 'ÀB'.lower() }}
{{ 'Hello wORLD'|title }} {{ 'Hello wORLD'|capitalize }} {{ 'ab'|upper }} {{ 'AB'|lower }}
{{ '  x '.strip() }}|{{ '  x '.lstrip() }}|{{ '  x '.rstrip() }}|{{ 'xxaxx'.strip('x') }}|{{ 'xyaxy'.rstrip('yx') }}|{{ '  x ' | trim }}|{{ 'xax'|trim('x') }}|
{{ 'a,b,,c'.split(',') }} {{ 'a,b,,c'.split(',', 1) }} {{ 'a,b,,c'.rsplit(',', 1) }} {{ long.split() }} {{ ' '.split(' ') }} {{ ''.split() }} {{ ''.split(',') }} {{ long.splitlines() }}
{{ 'abcabc'.replace('b', 'X') }} {{ 'abcabc'.replace('b', 'X', 1) }} {{ 'abcabc'|replace('b', 'XX') }} {{ 'abcabc'|replace('b', 'X', 1) }} {{ 'ab'.replace('', '-') }}
{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith(('x', 'c')) }} {{ 'abc'.find('c') }} {{ 'abc'.find('z') }} {{ 'abab'.rfind('b') }} {{ 'abab'.count('ab') }}
{{ 'abc'.removeprefix('a') }} {{ 'abc'.removesuffix('x') }} {{ '-'.join(words) }} {{ '12'.isdigit() }} {{ 'a1'.isalpha() }} {{ 'AB'.isupper() }} {{ ' '.isspace() }}
{{ d.get('z') }} {{ d.get('y') }} {{ d.get('y', 5) }} {{ d.keys() | list }} {{ d.values() | list }} {{ d.items() | list | length }} {% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}
{% for k, v in d | items %}{{ k }}={{ v }};{% endfor %} {% for k in d %}{{ k }}{% endfor %} {% for k, v in d | dictsort %}{{ k }}{% endfor %} {% for c in 'héy' %}[{{ c }}]{% endfor %}
{{ words | join }} {{ words | join('|') }} {{ [1, none, true, 2.0] | join(',') }} {{ messages | map(attribute='role') | join(',') }} {{ messages | join(',', attribute='role') }}
{{ words | first }} {{ words | last }} {{ words | length }} {{ words | count }} {{ 'abc' | length }} {{ d | length }} {{ unknown | length }} {{ [] | first }}|
{{ words | sort }} {{ words | sort(reverse=true) }} {{ words | sort(case_sensitive=true) }} {{ words | reverse | list }} {{ 'abc' | reverse }} {{ [3, 1, 3] | unique | list }} {{ [3, 1] | sum }} {{ [3, 1] | min }} {{ [3, 1] | max }}
{{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ messages | rejectattr('tool_calls') | list | length }} {{ messages | selectattr('tool_calls', 'defined') | map(attribute='role') | list }} {{ words | map('upper') | list }} {{ [1, 2, 3] | select('odd') | list }} {{ [1, 2, 3] | reject('odd') | list }} {{ [0, 1, none] | select | list }}
{{ unknown | default('d') }} {{ empty | default('d') }}| {{ empty | default('d', true) }} {{ nothing | d('e') }} {{ '3' | int + 1 }} {{ 'x' | int }} {{ 'x' | int(5) }} {{ '2.5' | float }} {{ true | float }} {{ true | int }} {{ 7 | string + '1' }} {{ 2.6 | round }} {{ 2.567 | round(2) }} {{ -3 | abs }} {{ 3.9 | int }}
{{ 'a\nb\n\nc' | indent }}| {{ 'a\nb' | indent(2, true) }}| {{ 'a\n\nb' | indent(width=1, first=true, blank=true) }}| {{ 'a\nb' | indent('> ') }}
{{ 'a & b' | safe }} {{ '<' | escape }}
{{ 1 is number }} {{ true is number }} {{ 1 is integer }} {{ 1.0 is float }} {{ true is boolean }} {{ 's' is string }} {{ [] is sequence }} {{ 's' is sequence }} {{ {} is sequence }} {{ {} is mapping }} {{ [] is mapping }} {{ [] is iterable }} {{ 's' is iterable }} {{ 1 is iterable }} {{ none is none }} {{ unknown is undefined }} {{ unknown is none }} {{ true is true }} {{ 1 is true }} {{ false is false }} {{ 3 is odd }} {{ 4 is even }} {{ 6 is divisibleby 3 }} {{ 'a' is in 'abc' }} {{ 1 is eq 1 }} {{ 1 is ne 1 }} {{ 2 is gt 1 }} {{ true is integer }} {{ none is sequence }}
{% set a = 1 %}{% set b, c = 2, 3 %}{{ a }}{{ b }}{{ c }}{% set t %}x{{ a }}y{% endset %}{{ t }}{% set u | upper %}abc{% endset %}{{ u }}
{% set ns = namespace(x=1, l=[]) %}{% for i in range(3) %}{% set ns.x = ns.x + i %}{% set ns.l = ns.l + [i] %}{% endfor %}{{ ns.x }} {{ ns.l }}
{% for i in range(5) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %} {% for i in [] %}x{% else %}none{% endfor %} {{ range(2, 8, 3) | list }} {{ range(3, 0, -1) | list }}
{% for i in words %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.cycle('x', 'y') }};{% endfor %}
{% for i in words if i != 'C' %}{{ loop.index }}{{ i }}{% endfor %} {% for a, b in [[1, 2], (3, 4)] %}{{ a }}-{{ b }} {% endfor %}
{% for x in [1, [2, [3]]] recursive %}{% if x is iterable %}({{ loop(x) }}){% else %}{{ x }}{% endif %}{% endfor %}
{% macro m(a, b='d', c=none) %}<{{ a }}{{ b }}{{ c }}>{% endmacro %}{{ m(1) }}{{ m(1, 2) }}{{ m(a=1, c=3) }}{% set r = m('z') | upper %}{{ r }}
{% macro m(x) %}[{{ caller(x) }}]{% endmacro %}{% call(y) m(5) %}y={{ y }}{% endcall %} {% filter upper %}abc{% endfilter %} {% with a = 1, b = 2 %}{{ a + b }}{% endwith %}
{% if n > 5 and x < 3 %}a{% elif n %}b{% else %}c{% endif %} {% if not (n == 7) %}a{% else %}b{% endif %} {{ (1, 2)[0] }} {{ dict(a=1, b='x').b }} {{ {'a': {'b': [1, 2]}}.a.b[1] }}
{{ strftime_now('%d %b %Y') }} {{ strftime_now('%Y-%m-%d %H:%M:%S %A %B %y %I %p %%') }}
  {% if true %}  
  a  
  {% endif %}  
b {%- if true -%}  c  {%- endif %} d {#- comment -#} e
{% raw %}{{ x }}{% endraw %} {{ "a\tb\\n\n" }} {{ 'é' }} {{ "it's" }} {{ 1_000 }}
line
{% for x in [1] %}
  {{ x }}
{% endfor %}
end
{{ tools[0].function.description }} {{ tools | tojson }}
{{ raise_exception('no: ' + messages[0].role) }}
{{ unknown.x }}
{{ unknown + 'x' }}
{{ 'a' + 1 }}
{{ 1 / 0 }}
{{ words.append('x') }}
{{ d.update({}) }}
{{ words | nofilter }}
{{ nofunction() }}
{% include 'x' %}
{{ 'a' if }}
{% if true %}
{{ {[1]: 2} }}
{% for a, b in [[1]] %}{% endfor %}
"""
GROUPS = {"  {% if true %}  ": 4, "line": 5}


def snippets():
    lines, i = SNIPPETS.strip("\n").split("\n"), 0
    while i < len(lines):
        count = GROUPS.get(lines[i], 1)
        yield "\n".join(lines[i:i + count])
        i += count


def render(template, variables):
    variables = dict(variables)
    messages, tools = variables.pop("messages"), variables.pop("tools", None)
    prompt = variables.pop("add_generation_prompt", True)
    try:
        texts, _ = chat_template_utils.render_jinja_template(
            [messages], tools=tools, chat_template=template, add_generation_prompt=prompt, **SPECIAL, **variables)
        return texts[0]
    except Exception as error:
        return {"error": type(error).__name__ + ": " + str(error)}


vectors = []
folders = ["templates", "../../src/chat/templates"]
for path in sorted(sum((glob.glob(os.path.join(HERE, folder, "*.jinja")) for folder in folders), [])):
    template = open(path, encoding="utf-8").read()
    for name, variables in CONVERSATIONS.items():
        title = os.path.basename(path).removesuffix(".jinja") + " " + name
        vectors.append(dict(name=title, file=os.path.relpath(path, HERE), variables=name, result=render(template, variables)))
for snippet in snippets():
    vectors.append(dict(name=snippet, template=snippet, variables="data", result=render(snippet, DATA)))
with open(os.path.join(HERE, "vectors.json"), "w", encoding="utf-8") as out:
    lines = [json.dumps(vector, ensure_ascii=False) for vector in vectors]
    variables = json.dumps(CONVERSATIONS | dict(data=DATA), ensure_ascii=False)
    out.write('{"variables": ' + variables + ',\n"vectors": [\n' + ",\n".join(lines) + "\n]}\n")
