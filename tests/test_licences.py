"""A licence goes, and nothing else: a comment is what its language says, at the top of a file."""

import random

import pytest

from cleaning import pii
from cleaning.view import CODE, PYTHON, comments_of, kind_of

HASH = "# Copyright 2020 Someone\n# Licensed under the Apache License, Version 2.0.\n"
SLASHES = "// Copyright X\n"
BLOCK = "/*\n * Copyright (c) 2020 Someone. All rights reserved.\n */\n"


def stripped(name, text):
    """A text without its licence, as prepare_data.py takes it off a file of this name."""
    meta = {"path": name}
    return pii.without_license(text, comments_of(kind_of(text, meta), meta))


@pytest.mark.parametrize(
    "name, licence, rest",
    [
        ("a.c", SLASHES, "#include <stdio.h>\n#define N 10\nint x;\n"),
        ("a.h", BLOCK, "#pragma once\n\n#if 0\nno code\n#endif\n"),
        ("a.cpp", BLOCK, "// What this file is for.\nint x;\n"),
        ("a.cu", SLASHES, "#include <cuda.h>\n"),
        ("a.py", HASH + "\n", "# What this module does\nimport x\n"),
        ("a.py", "# SPDX-License-Identifier: MIT\n\n", "#: a remark\nx = 1\n"),
        ("a.sh", HASH, "set -e\n"),
        ("a.rb", "=begin\nCopyright (c) 2020 Someone\n=end\n", "require 'x'\n"),
        ("a.rs", SLASHES, "#![allow(dead_code)]\n#[derive(Debug)]\nstruct X;\n"),
        ("a.cs", SLASHES, "#region Types\n#nullable enable\nclass X {}\n"),
        ("a.js", "/*! jQuery v3 | (c) 2020 JS Foundation | MIT license */\n", "(function () {})();\n"),
        ("a.lua", "-- Copyright 2020 Someone\n", "#t\nlocal x = 1\n"),
        ("a.lua", "--[[ Copyright 2020 Someone ]]\n", "local x = 1\n"),
        ("a.sql", "-- Copyright 2020 Someone\n", "/*!40101 SET NAMES utf8 */;\n"),
        ("a.hs", "{- Copyright 2020 Someone -}\n", "{-# LANGUAGE GADTs #-}\nmodule X where\n"),
        ("a.el", ";;; Copyright (C) 2020 Someone\n", "(setq x 1)\n"),
        ("a.s", "# Copyright 2020 Someone\n", "#include <asm.h>\n.text\n"),
        ("a.f", "C     Copyright 2020 Someone\n", "      CALL F(X)\n"),
        ("a.f90", "! Copyright 2020 Someone\n", "!$omp parallel\nprogram x\n"),
        ("a.erl", "% Copyright 2020 Someone\n", "-module(x).\n"),
        ("a.vb", "' Copyright 2020 Someone\n", "Module X\n"),
        ("a.bat", "REM Copyright 2020 Someone\n", "remember.exe\n"),
        ("a.vim", '" Copyright 2020 Someone\n', "let x = 1\n"),
        ("a.html", "<!-- Copyright 2020 Someone -->\n", "<!--[if IE]><p>old</p><![endif]-->\n"),
        ("a.ml", "(* Copyright 2020 Someone *)\n", "let x = 1\n"),
        ("a.css", BLOCK, "@media print { a {} }\n"),
        ("a.c", "/* Copyright 2020 Someone */", " int x;\n"),  # code on the same line
        ("a.py", HASH.replace("\n", "\r"), "x = 1\r"),  # lines of an old Macintosh
        ("a.py", HASH.replace("\n", "\r\n"), "x = 1\r\n"),
    ],
)
def test_a_licence_goes_and_what_follows_stays_byte_for_byte(name, licence, rest):
    assert stripped(name, licence + rest) == rest
    assert stripped(name, licence + "\n" + rest) in (rest, "\n" + rest)
    if name[1:] != ".f":
        assert stripped(name, rest) == rest


@pytest.mark.parametrize(
    "name, first, licence",
    [
        ("a.py", "#!/usr/bin/env python\n# -*- coding: utf-8 -*-\n", HASH),
        ("a.py", "# /// script\n# dependencies = ['x']\n# license = 'See LICENSE'\n# ///\n", HASH),
        ("a.py", "# cython: language_level=3\n", HASH),
        ("a.py", "# pylint: disable=all\n# type: ignore\n", HASH),
        ("a.rb", "# frozen_string_literal: true\n", HASH),
        ("a.go", "//go:build linux\n// +build linux\n\n", SLASHES),
        ("a.go", "//go:generate stringer\n", SLASHES),
        ("a.ts", '///<reference path="x.d.ts" />\n//@ts-nocheck\n', SLASHES),
        ("a.js", "'use strict';\n/* eslint-env node */\n// eslint-disable\n", BLOCK),
        ("a.js", "/* global jQuery */\n", SLASHES),
        ("Package.swift", "// swift-tools-version:5.3\n", SLASHES),
        ("a.php", "<?php\n", BLOCK),
        ("a.xml", '<?xml version="1.0"?>\n', "<!-- Copyright 2020 Someone -->\n"),
        ("a.rkt", "#lang racket\n", "; Copyright 2020 Someone\n"),
        ("a.yaml", "%YAML 1.2\n---\n", HASH),
        ("a.h", "#ifndef X_H\n#define X_H\n#include <x.h>\n", BLOCK),
        ("a.ps1", "#requires -Version 5\n", HASH),
        ("a.c", "/* What this file is for. */\n", BLOCK),
        ("a.cc", "//===- x.cc - a part -===//\n\n", SLASHES),
    ],
)
def test_what_stands_before_a_licence_stays(name, first, licence):
    rest = "x = 1\n"
    assert stripped(name, first + licence + rest) == first + rest
    assert stripped(name, first + "\n" + licence + "\n" + rest) == first + "\n" + rest
    assert stripped(name, first + rest) == first + rest


@pytest.mark.parametrize(
    "name, text",
    [
        ("a.py", '"""Copyright (c) 2020 Someone, licensed under the MIT license."""\nx = 1\n'),  # part of the program
        ("a.py", "x = 1\n" + HASH),
        ("a.py", "# Step (a), then (b) and (c) of the recipe\nx = 1\n"),
        ("a.py", "# Finds the copyright notices in a folder\nx = 1\n"),
        ("a.py", "# Reads number plates and driving licences\nx = 1\n"),
        ("a.c", '#define COPYRIGHT "(c) 2020 Someone, All rights reserved"\nint x;\n'),
        ("a.c", "#if 0\nCopyright 2020 Someone\n#endif\nint x;\n"),
        ("a.c", "#error Copyright 2020 Someone\n"),
        ("a.cs", "#region Copyright 2020 Someone\n#endregion\n"),
        ("a.json", '{"license": "MIT"}\n'),
        ("a.js", "/* eslint-env node\n * Copyright 2020 Someone */\nx = 1\n"),
        ("a.js", "/**\n * Copyright (c) 2020 Someone\n * @flow\n */\nx = 1\n"),
        ("a.js", "# Copyright 2020 Someone\n"),
        ("a.hs", "{-# LANGUAGE Copyright #-} -- all rights reserved\n"),
        ("a.c", "/* Copyright 2020 Someone, never closed\nint x;\n"),
        ("a.ml", "(* Copyright 2020 (* nested *) Someone *)\nlet x = 1\n"),
        ("a.f", "      C = Copyright2020\n"),
        ("a.php", "#[Copyright(2020)]\nclass X {}\n"),
    ],
)
def test_what_is_no_licence_stays(name, text):
    assert stripped(name, text) == text


def test_a_licence_in_several_comments_goes_whole():
    second = "# Redistribution and use in source and binary forms are permitted.\n"
    assert stripped("a.py", HASH + "\n" + second + "\n# What it does\nx = 1\n") == "# What it does\nx = 1\n"


def test_without_a_language_a_preprocessor_line_is_no_comment():
    text = SLASHES + "\n#include <stdio.h>\n#define N 10\n"
    assert pii.without_license(text) == "#include <stdio.h>\n#define N 10\n"
    assert pii.without_license("# Copyright 2020 X\n#include <stdio.h>\n") == "#include <stdio.h>\n"
    assert pii.without_license(HASH + "x = 1\n") == "x = 1\n"


def test_whatever_is_put_together_code_stays():
    """Random heads of files: lines of code survive in their order, and a second time changes nothing."""
    rng = random.Random(0)
    comments = [SLASHES, BLOCK, "// a remark\n", "/* a remark */\n", "\n", "// +build linux\n"]
    code = ["#include <stdio.h>\n", "#define N (c)\n", 'char *s = "Copyright 2020 X";\n', "int x;\n"]
    for _ in range(300):
        lines = rng.choices(comments + code, k=8)
        once = stripped("a.c", "".join(lines))
        assert [line for line in once.splitlines(True) if line in code] == [line for line in lines if line in code]
        assert stripped("a.c", once) == once and once.count("+build") == lines.count("// +build linux\n")


def test_the_language_of_a_record_says_what_a_comment_is():
    assert comments_of(CODE, {"language": "C++"}) == comments_of(CODE, {"path": "a.h"})
    assert comments_of(CODE, {"language": "c-sharp"}) == comments_of(CODE, {"language": "C#", "path": "x.unknown"})
    assert comments_of(CODE, {"language": "Visual Basic .NET"}).lines == ("'",)
    assert comments_of(PYTHON, {}).lines == ("#",)
