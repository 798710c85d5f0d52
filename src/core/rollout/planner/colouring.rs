//! Splits the edges of a bipartite graph into classes of equal size that are spread evenly at each
//! vertex: of `d` edges at a vertex, each of `k` classes gets `d / k`, rounded up or down.
//!
//! Each vertex is cut into parts with at most `k` edges; then an edge colouring with `k` colours,
//! which always exists (Kőnig), gives each part at most one edge of each colour.

use std::collections::BTreeMap;

const NONE: usize = usize::MAX;

struct Colouring {
    classes: usize,
    /// For each edge, its two parts of vertices.
    edges: Vec<[usize; 2]>,
    colours: Vec<usize>,
    /// For each part of a vertex and each colour, the edge.
    at: Vec<usize>,
}

/// Returns the class of each edge, below `classes`.
pub(super) fn split(edges: &[(usize, usize)], classes: usize) -> Vec<usize> {
    let classes = classes.max(1);
    let mut parts: BTreeMap<(bool, usize, usize), usize> = BTreeMap::new();
    let mut degrees: BTreeMap<(bool, usize), usize> = BTreeMap::new();
    let mut part = |right: bool, vertex: usize| {
        let degree = degrees.entry((right, vertex)).or_default();
        *degree += 1;
        let count = parts.len();
        *parts
            .entry((right, vertex, (*degree - 1) / classes))
            .or_insert(count)
    };
    let edges: Vec<[usize; 2]> = edges
        .iter()
        .map(|(left, right)| [part(false, *left), part(true, *right)])
        .collect();
    let mut colouring = Colouring {
        classes,
        colours: vec![NONE; edges.len()],
        edges,
        at: vec![NONE; parts.len() * classes],
    };
    (0..colouring.edges.len()).for_each(|edge| colouring.add(edge));
    colouring.balance();
    colouring.colours
}

impl Colouring {
    fn at(&self, part: usize, colour: usize) -> usize {
        self.at[part * self.classes + colour]
    }

    fn free(&self, part: usize) -> usize {
        (0..self.classes)
            .find(|colour| self.at(part, *colour) == NONE)
            .unwrap_or(0)
    }

    fn add(&mut self, edge: usize) {
        let [left, right] = self.edges[edge];
        let (wanted, other) = (self.free(left), self.free(right));
        if wanted != other {
            // The path cannot end at `left`: it would arrive there with `wanted`.
            let path = self.path(right, wanted, other);
            self.flip(&path, wanted, other);
        }
        self.paint(edge, wanted);
    }

    fn paint(&mut self, edge: usize, colour: usize) {
        self.colours[edge] = colour;
        for part in self.edges[edge] {
            self.at[part * self.classes + colour] = edge;
        }
    }

    /// The edges from a part of a vertex on, alternately of these two colours. `second` is free there.
    fn path(&self, from: usize, first: usize, second: usize) -> Vec<usize> {
        let (mut path, mut part, mut colour) = (Vec::new(), from, first);
        loop {
            let edge = self.at(part, colour);
            if edge == NONE {
                return path;
            }
            path.push(edge);
            let [left, right] = self.edges[edge];
            part = if left == part { right } else { left };
            colour = if colour == first { second } else { first };
        }
    }

    /// Exchanges the colours of a path.
    fn flip(&mut self, path: &[usize], one: usize, other: usize) {
        for edge in path {
            for part in self.edges[*edge] {
                for colour in [one, other] {
                    self.at[part * self.classes + colour] = NONE;
                }
            }
        }
        for edge in path {
            let colour = if self.colours[*edge] == one {
                other
            } else {
                one
            };
            self.paint(*edge, colour);
        }
    }

    /// Makes the classes equal in size but for one edge: of two classes, a path that has one more edge
    /// of the larger class exchanges them.
    fn balance(&mut self) {
        let mut sizes = vec![0_usize; self.classes];
        self.colours.iter().for_each(|colour| sizes[*colour] += 1);
        let parts = self.at.len() / self.classes;
        loop {
            let large = (0..self.classes).max_by_key(|colour| sizes[*colour]);
            let small = (0..self.classes).min_by_key(|colour| sizes[*colour]);
            let (Some(large), Some(small)) = (large, small) else {
                return;
            };
            if sizes[large] < sizes[small] + 2 {
                return;
            }
            for part in 0..parts {
                let ends = self.at(part, large) != NONE && self.at(part, small) == NONE;
                if sizes[large] < sizes[small] + 2 || !ends {
                    continue;
                }
                let path = self.path(part, large, small);
                if path.len() % 2 == 1 {
                    self.flip(&path, large, small);
                    (sizes[large], sizes[small]) = (sizes[large] - 1, sizes[small] + 1);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_vertex_and_each_class_gets_its_even_share(edges in prop::collection::vec((0..8_usize, 0..8_usize), 0..60), classes in 1..6_usize) {
            let colours = split(&edges, classes);
            let even = |colours: Vec<usize>| {
                let sizes = (0..classes).map(|class| colours.iter().filter(|colour| **colour == class).count());
                let sizes: Vec<usize> = sizes.collect();
                sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1
            };
            prop_assert!(even(colours.clone()), "{colours:?}");
            for vertex in 0..8 {
                let of = |at: fn(&(usize, usize)) -> usize| even((0..edges.len()).filter(|e| at(&edges[*e]) == vertex).map(|e| colours[e]).collect());
                prop_assert!(of(|edge| edge.0) && of(|edge| edge.1), "{vertex}: {colours:?}");
            }
        }
    }
}
