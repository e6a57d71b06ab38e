"""The tables of JavaScript, TypeScript and PHP."""

from codestage.data.languages.grammar import CLASS, Grammar, Names, Places, words

_JS_BINDS: Places = {
    "variable_declarator": ("name",),
    "function_declaration": ("name",),
    "generator_function_declaration": ("name",),
    "function_signature": ("name",),
    "function_expression": ("name",),
    "generator_function": ("name",),
    "formal_parameters": ("all",),
    "required_parameter": ("pattern",),
    "arrow_function": ("parameter",),
    "catch_clause": ("parameter",),
    "for_in_statement": ("left",),
}
JAVASCRIPT = Grammar(
    package="tree_sitter_javascript",
    functions=("language",),
    comments=words("comment html_comment"),
    whole=words("string template_string regex hash_bang_line"),
    words=words("this super true false null import"),
    lines=True,
    around=(CLASS,),
    names=Names(
        binds=_JS_BINDS,
        within={
            "optional_parameter": ("pattern",),
            "assignment_pattern": ("left",),
            "rest_pattern": ("all",),
            "array_pattern": ("all",),
            "object_pattern": ("all",),
            "pair_pattern": ("value",),
        },
        keeps={
            "shorthand_property_identifier": ("self",),
            "shorthand_property_identifier_pattern": ("self",),
            "import_statement": ("all",),
            "export_specifier": ("name",),
            "class_declaration": ("name",),
            "enum_declaration": ("name",),
            "ambient_declaration": ("all",),
            "jsx_opening_element": ("name",),
            "jsx_closing_element": ("name",),
            "jsx_self_closing_element": ("name",),
        },
        marks=words("public private protected readonly override"),
        kept=words(
            "_ arguments undefined console require module exports window document process globalThis"
        ),
    ),
)
TYPESCRIPT = Grammar(
    package="tree_sitter_typescript",
    functions=("language_typescript", "language_tsx"),
    comments=JAVASCRIPT.comments,
    whole=JAVASCRIPT.whole | {"template_literal_type"},
    words=JAVASCRIPT.words,
    lines=True,
    around=(CLASS,),
    names=JAVASCRIPT.names,
)
PHP = Grammar(
    package="tree_sitter_php",
    functions=("language_php",),
    comments=words("comment"),
    whole=words(
        "variable_name string encapsed_string heredoc nowdoc shell_command_expression text_interpolation"
    ),
    words=words("boolean null cast_type primitive_type"),
    around=(CLASS,),
    names=Names(
        leaves=words("variable_name name"),
        binds={
            "assignment_expression": ("left",),
            "reference_assignment_expression": ("left",),
            "simple_parameter": ("name",),
            "variadic_parameter": ("name",),
            "foreach_statement": ("rest",),
            "static_variable_declaration": ("name",),
            "catch_clause": ("name",),
            "function_definition": ("name",),
        },
        within={
            "list_literal": ("all",),
            "pair": ("all",),
            "by_ref": ("all",),
            "array_element_initializer": ("last",),
            "subscript_expression": ("first",),
        },
        keeps={
            "global_declaration": ("all",),
            "dynamic_variable_name": ("all",),
            "argument": ("name",),
            "property_element": ("name",),
            "property_promotion_parameter": ("name",),
            "namespace_use_declaration": ("all",),
        },
        told={"string": r"^'([A-Za-z_]\w*)'$", "encapsed_string": r'^"([A-Za-z_]\w*)"$'},
        fixed=frozenset({("property_element", "name"), ("scoped_property_access_expression", "name")}),
        only={
            "name": frozenset(
                {("function_definition", "name"), ("function_call_expression", "function")}
            )
        },
        kept=words(
            "$this $GLOBALS $_GET $_POST $_COOKIE $_FILES $_SERVER $_ENV $_REQUEST $_SESSION $argv $argc $_"
        ),
        sign="$",
    ),
)
