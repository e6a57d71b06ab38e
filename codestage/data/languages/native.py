"""The tables of C, C++, Go and Rust."""

from codestage.data.languages.grammar import Grammar, Names, Places, words

_C_WITHIN: Places = {
    "init_declarator": ("declarator",),
    "pointer_declarator": ("declarator",),
    "array_declarator": ("declarator",),
    "function_declarator": ("declarator",),
    "attributed_declarator": ("first",),
    "parenthesized_declarator": ("all",),
    "reference_declarator": ("all",),
    "structured_binding_declarator": ("all",),
    "variadic_declarator": ("all",),
}
_C_BINDS: Places = {
    "declaration": ("declarator",),
    "parameter_declaration": ("declarator",),
    "function_definition": ("declarator",),
}
_C_KEEPS: Places = {
    "struct_specifier": ("name",),
    "union_specifier": ("name",),
    "enum_specifier": ("name",),
    "enumerator": ("name",),
    "type_definition": ("declarator",),
    "preproc_def": ("name",),
    "preproc_function_def": ("name",),
    "preproc_ifdef": ("name",),
    "preproc_if": ("condition",),
    "preproc_elif": ("condition",),
    "preproc_defined": ("all",),
}
_C_TYPES = words(
    "size_t ssize_t intptr_t uintptr_t charptr_t nullptr_t max_align_t ptrdiff_t NULL _ "
) | {f"{sign}int{bits}_t" for sign in ("", "u") for bits in (8, 16, 32, 64)}
C = Grammar(
    package="tree_sitter_c",
    functions=("language",),
    comments=words("comment"),
    whole=words("string_literal char_literal system_lib_string preproc_arg"),
    words=words("primitive_type true false"),
    no_words=_C_TYPES,
    directives=True,
    around=(("void f(){\n", "}"),),
    names=Names(
        leaves=words("identifier type_identifier"),
        binds=_C_BINDS,
        within=_C_WITHIN,
        keeps=_C_KEEPS,
        told={"preproc_arg": r"([A-Za-z_]\w*)"},
        skip=words("preproc_params"),
        marks=words("extern"),
        prototypes=True,
        kept=words("main _"),
    ),
)
CPP = Grammar(
    package="tree_sitter_cpp",
    functions=("language",),
    comments=words("comment"),
    whole=words("string_literal char_literal raw_string_literal system_lib_string preproc_arg"),
    words=words("primitive_type true false this auto"),
    no_words=_C_TYPES,
    directives=True,
    around=(("void f(){\n", "}"), ("class A{\n", "};")),
    names=Names(
        leaves=words("identifier type_identifier"),
        binds={
            **_C_BINDS,
            "optional_parameter_declaration": ("declarator",),
            "variadic_parameter_declaration": ("declarator",),
            "for_range_loop": ("declarator",),
            "lambda_capture_initializer": ("left",),
        },
        within=_C_WITHIN,
        keeps={
            **_C_KEEPS,
            "class_specifier": ("name",),
            "alias_declaration": ("name",),
            "type_parameter_declaration": ("all",),
            "field_declaration": ("declarator",),
            "qualified_identifier": ("name",),
            "using_declaration": ("all",),
        },
        told={"preproc_arg": r"([A-Za-z_]\w*)"},
        skip=words("preproc_params"),
        methods=words("field_declaration_list"),
        marks=words("extern"),
        prototypes=True,
        kept=words("main _"),
    ),
)
GO = Grammar(
    package="tree_sitter_go",
    functions=("language",),
    comments=words("comment"),
    whole=words("interpreted_string_literal raw_string_literal rune_literal"),
    words=words("true false nil"),
    lines=True,
    names=Names(
        binds={
            "short_var_declaration": ("left",),
            "var_spec": ("name",),
            "const_spec": ("name",),
            "parameter_declaration": ("name",),
            "variadic_parameter_declaration": ("name",),
            "function_declaration": ("name",),
            "range_clause": ("left",),
            "type_switch_statement": ("alias",),
            "receive_statement": ("left",),
        },
        within={"expression_list": ("all",), "literal_element": ("all",)},
        keeps={"keyed_element": ("key",), "type_parameter_declaration": ("name",)},
        told={"import_spec": r'(?:^|["/ ])(\w+)"?(?=$| )'},
        kept=words(
            "_ main init iota append cap clear close complex copy delete imag len make max min new panic print "
            "println real recover"
        ),
    ),
)
_FORMAT = r"\{([A-Za-z_]\w*)|([A-Za-z_]\w*)\$"
"""Names in a string that a macro of Rust's fills: `{name}`, `{:>name$}`."""
RUST = Grammar(
    package="tree_sitter_rust",
    functions=("language",),
    comments=words("line_comment block_comment"),
    whole=words("string_literal raw_string_literal char_literal lifetime label"),
    words=words("boolean_literal mutable_specifier self super crate"),
    attached=r"//!|///(?!/)|/\*!|/\*\*(?![*/])",
    names=Names(
        binds={
            "let_declaration": ("pattern",),
            "parameter": ("pattern",),
            "closure_parameters": ("all",),
            "for_expression": ("pattern",),
            "let_condition": ("pattern",),
            "match_pattern": ("first",),
            "const_item": ("name",),
            "static_item": ("name",),
            "function_item": ("name",),
        },
        within={
            "parameter": ("pattern",),
            "tuple_pattern": ("all",),
            "tuple_struct_pattern": ("rest",),
            "struct_pattern": (".field_pattern",),
            "field_pattern": ("pattern",),
            "ref_pattern": ("all",),
            "mut_pattern": ("all",),
            "reference_pattern": ("all",),
            "captured_pattern": ("all",),
            "or_pattern": ("all",),
            "slice_pattern": ("all",),
        },
        keeps={
            "use_declaration": ("all",),
            "shorthand_field_identifier": ("self",),
            "shorthand_field_initializer": ("all",),
            "enum_variant": ("name",),
            "mod_item": ("name",),
        },
        told={
            "string_literal": _FORMAT,
            "raw_string_literal": _FORMAT,
            "scoped_identifier": r"(\w+)$",
        },
        fixed=frozenset({("scoped_identifier", "path"), ("scoped_identifier", "name")}),
        skip=words("attribute_item inner_attribute_item lifetime label"),
        methods=words("impl_item trait_item foreign_mod_item"),
        lower=words(
            "let_declaration parameter closure_parameters for_expression let_condition match_pattern"
        ),
        kept=words("main self _"),
    ),
)
