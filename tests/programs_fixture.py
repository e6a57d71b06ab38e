"""A program in each of nine languages: strings that look like comments, nested scopes, generics, lines for a
preprocessor. Those that a compiler is often at hand for print `total 42`.
"""

C = r"""#include <stdio.h>
#include <string.h>
#define TWICE(a) ((a) * 2) // a macro
#define LIMIT \
    3 /* steps */

/* A box. */
typedef struct {
    int width; // in cells
    int count;
} Box;

int grow(Box *box, int by);

// Grows it.
int grow(Box *box, int by) {
    box->width += by - -1; /* one more */
    return TWICE(box->width);
}

int main(void) {
    const char *told = "/* no */ // no";
    Box box = { .width = 3, .count = 0 };
    int total = 0, *place = &total;
    int (*also)(Box *, int) = grow;
#ifdef NOISY
    printf("%s\n", told);
#endif
    for (int step = 0; step < LIMIT; step++) { // each
        int by = step + 1;
        *place += also(&box, by) / 2; /* half
                                         of it */
    }
    if (sizeof(box) > 0 && told[0] == '/') total += (int)strlen(told) - 3;
    printf("total %d %d\n", total + 6, TWICE(box.width));
    return 0;
}
"""

CPP = r"""#include <cstdio>
#include <string>
#include <vector>
#define TWICE(a) ((a) * 2) // a macro

using std::string;

// A box of anything.
template <typename T, int Most = 3>
class Box {
  public:
    Box(T first, int size) : held{first}, width(size) { count = 1; } /* one */
    void grow(const T &item) {
        held.push_back(item); // at the end
        count += 1;
        width = TWICE(width) > Most ? width + 1 : width;
    }
    int size() const { return count + width; }

  private:
    int count = 0;
    std::vector<T> held;
    int width;
};

namespace sums {
int area(int wide, int high = 2) { return wide * high; }
}  // namespace sums

static auto twice(int value) -> int { return value << 1; }

int main() {
    string told = "/* no */ // no";
    auto raw = R"(a // b)";
    Box<std::vector<int> > box({1, 2}, 3);
    int total = 0;
    for (int step = 0; step < 4; step++) {
        auto add = [&total, step](int by) mutable { total += by - -step; return total; };
        add(twice(step)); /* each
        step */
    }
    box.grow({3});
    for (const auto &letter : told) if (letter == 'n') total += sums::area(3);
    std::vector<int> many(3, 1);
    for (int one : many) total += one;
    printf("total %d\n", total + box.size() + (raw[0] == 'a' ? 3 : 0));
    return 0;
}
"""

JAVA = r"""import java.util.ArrayList;
import java.util.List;
import java.util.function.IntUnaryOperator;

/** Adds up. */
public class Main {
    interface Shape { int area(int wide, int high); }

    /* A box. */
    static class Box<T extends Comparable<T>> {
        private int count = 0; // of items
        private final List<T> held = new ArrayList<>();
        int width;

        Box(int width) {
            this.width = width;
        }

        // Takes one more.
        void grow(T item) {
            held.add(item);
            count += /* always */ 1;
        }

        int size() { return count + held.size() + width; }
    }

    public static void main(String[] args) throws Exception {
        String told = "/* no */ // no";
        int total = 0;
        for (int step = 0; step < 4; step++) {
            final int by = step;
            IntUnaryOperator add = before -> before + by - -by; // twice
            total = add.applyAsInt(total);
        }
        Box<String> box = new Box<>(3);
        for (String word : told.split(" ")) { box.grow(word); }
        Shape shape = (wide, high) -> wide * high;
        Object any = box;
        if (any instanceof Box) total += shape.area(4, 2) >> 0; /* it
            is one */
        try { total += box.size(); } catch (RuntimeException error) { throw new Exception(error); }
        System.out.println("total " + (total + 9));
    }
}
"""

JAVASCRIPT = r"""// Adds up.
'use strict'
/** A box. */
class Box {
  width = 3 // in cells
  count = 0

  constructor(first) {
    this.held = [first]
  }

  grow(item) { /* one more */
    this.held.push(item)
    this.count += 1
  }

  get size() { return this.held.length + this.count }
}

function area(wide, { high = 2, deep: depth = 1 }, ...rest) {
  return wide * high * depth + rest.length
}

const told = "/* no */ // no", pattern = /\/\/ no/g
let total = 0
for (let step = 0; step < 4; step++) {
  const add = by => total + by - -step // twice
  total = add(step)
}
const box = new Box({ wide: total, height: total })
for (const letter of told) if (letter === 'n') box.grow(letter)
const [first, second = 4] = [box.size]
const sum = async (a, b) => { return a + b }
total += area(first, { high: 2, deep: 1 }, ...[1, 2]) + second
total += told.replace(pattern, `${first /* in */}//`).length /* of
  it */
try { null.x } catch (error) { total += 1 }
console.log(`total ${total + 1 + (typeof sum === 'function' ? 0 : 1)}`)
"""

TYPESCRIPT = r"""// Adds up.
import { readFileSync as read, type Stats } from "fs";

/** A shape. */
interface Shape<T> { width: number; area(wide: T, high?: T): number }
enum Kind { Box, Round = "round" }
type Pair<T> = [T, T] | { first: T };

abstract class Base { constructor(protected width: number, private readonly name?: string) {} }

class Box<T> extends Base implements Shape<number> {
  count = 0; // of items
  private held: Array<T> = [];

  grow(item: T): void { /* one more */
    this.held.push(item);
    this.count += 1;
  }

  area(wide: number, high = 2): number { return wide * high }
}

function isBox(value: unknown): value is Box<string> { return value instanceof Box }

export function add<T extends number>(total: number, by: T, ...rest: T[]): number {
  const told: string = "/* no */ // no";
  for (let step = 0; step < 4; step++) total += by - -step // twice
  const sum = (a: number, b: number): number => a + b;
  const box = new Box<string>(3), kind = Kind.Box as Kind;
  if (isBox(box) && rest.length < 2) { box!.grow(told) }
  return sum(total, `${box.count /* in */}//`.length) /* of
  it */
}

console.log(add(1, 2, 3), typeof read);
"""


PHP = r"""<h1>A page // with # text</h1>
<?php
use Some\Thing;

# Adds up.
/** A box. */
class Box
{
    public $width = 3; // in cells
    private static $all = 0;

    public function __construct(private int $count = 0, $width = 3)
    {
        $this->width = $width;
    }

    public function grow(int $by): int /* more */
    {
        $sum = $this->width + $by - -1;
        self::$all += $sum;
        return $this->width = $sum;
    }
}

function area(int $wide, &$high = 2, ...$rest)
{
    return $wide * $high + count($rest);
}

$told = "/* no */ // no";
$total = 0;
$box = new Box(count: 1);
for ($step = 0; $step < 3; $step++) { // each
    $add = function ($by) use ($box, &$total) { return $box->grow($by) + $total; };
    $total = $add($step) % 7;
}
foreach (['a' => 1, 'b' => 2] as $key => $value) {
    $total += $value; # twice
}
list($first, $second) = [1, 2];
$double = fn($n) => $n * 2;
$text = <<<END
  total $total // no {$box->width}
END;
/* of
   it */
if ($first < $second) echo "total ", area($double($first)) + $total + 30 . "\n";
?>
<p># after</p>
"""

CSHARP = r"""using System;
using System.Collections.Generic;
using Pair = System.Tuple;
#region boxes

namespace App
{
    /// <summary>A box.</summary>
    public class Box<T> where T : IComparable<T>
    {
        private int count = 0; // of items
        public int Width { get; set; } = 3;
        public List<T> Held = new List<T>();

        public Box(int width) { Width = width; this.count = width; }

        public int Grow(T item, ref int by)
        {
            Held.Add(item); /* one more */
            by -= - -1;
            return count + by;
        }
    }

    record Size(int Wide, int High);

    class Program
    {
        static void Main(string[] args)
        {
            string told = "/* no */ // no", path = @"C:\x ""y"" // z";
            int total = 0;
#if NOISY
            Console.WriteLine(told);
#endif
            for (int step = 0; step < 4; step++) { total += step; } // each
            int Twice(int value) => value * 2;
            Func<int, int> add = by => by + total;
            var box = new Box<string>(3) { Width = total };
            foreach (var word in told.Split(' ')) { box.Grow(word, ref total); }
            if (int.TryParse("3", out var three) && (object)box is Box<string> other) total += three;
            var (wide, high) = (1, 2); /* of
                it */
            var shown = new { total, Sum = wide + high };
            try { Twice(value: add(1)); } catch (Exception error) when (error.Message != null) { throw; }
            Console.WriteLine($"total {shown.total + total:D2} // no");
            return;
        }
    }
}
#endregion
"""

GO = r"""// Adds up.
package main

import (
	"fmt"
	str "strings"
)

const limit = 4 // steps

/* A box. */
type Box[T any] struct {
	width int
	count int
	held  []T
}

type Shape interface{ grow(by int) int }

// grow takes one more.
func (b *Box[T]) grow(by int) (sum int) {
	sum = b.width + by - -1
	b.width = sum
	return
}

func area[T int | float64](wide, high T, rest ...int) T {
	for range rest {
		wide += /* one */ 1
	}
	return wide * high
}

func main() {
	told := "/* no */ // no"
	raw := `a // b
	c`
	total, ok := 0, true
	for step := 0; step < limit; step++ {
		add := func(by int) int { return total + by - -step } // twice
		total = add(step)
	}
	box := &Box[int]{width: 3, held: []int{1}}
	for i, letter := range str.Split(told, "") {
		if letter == "n" && i > -1 {
			total += box.grow(1)
		}
	}
	var shape Shape = box
	switch value := any(shape).(type) {
	case *Box[int]:
		total += value.count
	default:
		ok = false
	}
	if err := fmt.Errorf("x"); err != nil && ok && len(raw) < 100 {
		total += area(2, 3, 1) /* of
		it */
	}
	fmt.Println("total", total+9)
}
"""

RUST = r"""//! Adds up.
use std::collections::HashMap;

const LIMIT: i32 = 4; // steps

/// A box.
#[derive(Debug, Clone)]
struct Box2<T> {
    width: i32,
    count: i32,
    held: Vec<T>,
}

/* What grows. */
trait Grows {
    fn grow(&mut self, by: i32) -> i32;
}

impl<T: Clone> Grows for Box2<T> {
    /// One more.
    fn grow(&mut self, by: i32) -> i32 {
        self.count += /* always */ 1;
        self.width += by - -1;
        self.width
    }
}

fn longest<'a>(first: &'a str, other: &'a str) -> &'a str {
    if first.len() > other.len() { first } else { other }
}

fn main() {
    let told = "/* no */ // no";
    let raw = r#"a "// b"#;
    let mut total: i32 = 0;
    'outer: for step in 0..10 {
        let add = |by: i32| by - -step; // twice
        if step >= LIMIT { break 'outer; }
        total += add(step);
    }
    let mut shape = Box2 { width: 3, count: 0, held: vec![1, 2] };
    for letter in told.chars().filter(|c| *c == 'n') {
        total += match letter { 'n' => shape.grow(1), other if other > 'z' => 0, _ => 1 };
    }
    let Box2 { width, .. } = shape.clone();
    let mut named: HashMap<&str, i32> = HashMap::new();
    named.insert(longest("a", raw), width);
    if let Some(value) = named.get(raw) { total += value; } /* of
        it */
    assert!(total > 0 && !shape.held.is_empty(), "{} {told}", total);
    println!("total {:>w$}", total + 11, w = 2);
}
"""

PROGRAMS = {
    "java": JAVA,
    "javascript": JAVASCRIPT,
    "typescript": TYPESCRIPT,
    "php": PHP,
    "csharp": CSHARP,
    "c": C,
    "cpp": CPP,
    "go": GO,
    "rust": RUST,
}
